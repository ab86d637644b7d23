# Builds, tries out, tests and installs sesscache. GNU make.
#
#   make            build the library and lay out $(STAGE): header, library, pkg-config file, compiled examples
#   make demo       show in a table what the cache does for a server of four processes
#   make test       every test: Rust, C programs, other TLS clients, valgrind
#   make bench      measure the store and whole handshakes beside their peers, about 10 minutes; docs/bench has the last results
#   make fuzz       fuzz every decoder and the C API: SECONDS=600 each, TARGETS=; fuzz-short: 5 seconds each
#   make sanitize   C programs under ThreadSanitizer and AddressSanitizer; sanitize-short: fewer
#   make miri       the pure modules under Miri
#   make soak       a server under everything at once, for MINUTES=10; `make test` has 20 seconds of it
#   make check      formatting, lints, documentation
#   make header     write include/sesscache.h anew from src/
#   make install    into $(DESTDIR)$(PREFIX), after `make`; `make uninstall` takes it away
#   make clean

PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=
CARGO   ?= cargo
CFLAGS  ?= -O2 -g

BINDIR     := $(DESTDIR)$(PREFIX)/bin
INCLUDEDIR := $(DESTDIR)$(PREFIX)/include
MANDIR     := $(DESTDIR)$(PREFIX)/share/man
EXAMPLEDIR := $(DESTDIR)$(PREFIX)/share/doc/sesscache/examples
LIBRARYDIR := $(DESTDIR)$(LIBDIR)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# While the major version is 0 every minor version is an ABI of its own; build.rs sets the same soname.
ABI     := $(shell echo $(VERSION) | cut -d. -f1-2)

TARGET   := $(or $(CARGO_TARGET_DIR),target)
RELEASE  := $(TARGET)/release
STAGE    := $(TARGET)/stage
EXAMPLES := $(patsubst c-examples/%.c,%,$(wildcard c-examples/*.c))
PROGRAM  := $(if $(wildcard src/bin/sesscache*),sesscache)
MANPAGES := $(wildcard man/*.[1-8])

WARNINGS := -std=c11 -Wall -Wextra -Wpedantic -Werror
STAGED_PKG_CONFIG := PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig pkg-config

# What a step needs: a command, a pkg-config module or a file, and the Debian package that brings it.
NEED_BUILD := cc:gcc /usr/include/stdio.h:libc6-dev pkg-config:pkg-config libssl:libssl-dev
NEED_DEMO  := $(NEED_BUILD) openssl:openssl
NEED_TEST  := $(NEED_DEMO) g++:g++ valgrind:valgrind,libc6-dbg gnutls-cli:gnutls-bin python3:python3 \
              nm:binutils strace:strace setpriv:util-linux unshare:util-linux mount:mount

NEED_BENCH := $(NEED_BUILD) redis-server:redis-server memcached:memcached /usr/include/gdbm.h:libgdbm-dev

NEED_SANITIZE := $(NEED_BUILD) g++:g++ readelf:binutils

.PHONY: fuzz fuzz-short sanitize sanitize-short miri soak need-sanitize
.PHONY: all stage demo test bench check header install uninstall clean need-build need-demo need-test need-bench FORCE
.DELETE_ON_ERROR:

all: need-build stage

need-build: ; @scripts/need $(NEED_BUILD)
need-demo:  ; @scripts/need $(NEED_DEMO)
need-test:  ; @scripts/need $(NEED_TEST)
need-bench: ; @scripts/need $(NEED_BENCH)
need-sanitize: ; @scripts/need $(NEED_SANITIZE)

# ---- the staged prefix -------------------------------------------------------------------------------------------

stage: $(STAGE)/lib/libsesscache.so $(STAGE)/include/sesscache.h $(STAGE)/lib/pkgconfig/sesscache.pc \
       $(addprefix $(STAGE)/bin/,$(EXAMPLES) $(PROGRAM))

# Cargo knows best whether anything changed; when nothing did, the file keeps its time and nothing below is remade.
$(RELEASE)/libsesscache.so: FORCE
	$(CARGO) build --release --quiet

$(STAGE)/lib/libsesscache.so.$(ABI): $(RELEASE)/libsesscache.so
	install -D -m 755 $< $@

$(STAGE)/lib/libsesscache.so: $(STAGE)/lib/libsesscache.so.$(ABI)
	ln -sfn $(<F) $@

$(STAGE)/include/sesscache.h: include/sesscache.h
	install -D -m 644 $< $@

# ${pcfiledir} makes the staged prefix work wherever the tree is moved.
$(STAGE)/lib/pkgconfig/sesscache.pc: sesscache.pc.in Cargo.toml Makefile
	mkdir -p $(@D)
	sed -e 's|@PREFIX@|$${pcfiledir}/../..|' -e 's|@LIBDIR@|$${prefix}/lib|' -e 's|@VERSION@|$(VERSION)|' $< >$@

$(STAGE)/bin/%: c-examples/%.c $(STAGE)/include/sesscache.h $(STAGE)/lib/libsesscache.so $(STAGE)/lib/pkgconfig/sesscache.pc
	mkdir -p $(@D)
	$(CC) $(WARNINGS) $(CFLAGS) $$($(STAGED_PKG_CONFIG) --cflags sesscache) $< -o $@ $$($(STAGED_PKG_CONFIG) --libs sesscache)

$(STAGE)/bin/sesscache: $(RELEASE)/libsesscache.so
	install -D -m 755 $(RELEASE)/sesscache $@

# ---- trying out and testing --------------------------------------------------------------------------------------

demo:
	@scripts/demo

test: need-test stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --no-fail-fast

bench: need-bench
	$(CARGO) bench --bench store
	$(CARGO) bench --bench handshake
	$(CARGO) bench --bench report

# ---- that it never hurts its host --------------------------------------------------------------------------------

SECONDS ?= 600
MINUTES ?= 10
TARGETS ?=
# Programs that a sanitizer has most to say about: threads, forks, handles, records.
SANITIZED_SHORT := fork_and_threads opaque_records
SANITIZED := attach_and_detach early_data fork_and_threads host_state_untouched lifecycle opaque_records

fuzz: need-sanitize
	@scripts/nightly
	@scripts/fuzz $(SECONDS) $(TARGETS)

fuzz-short: need-sanitize
	@scripts/nightly
	@scripts/fuzz 5 $(TARGETS)

sanitize: need-sanitize
	@scripts/nightly rust-src
	@scripts/sanitize thread $(SANITIZED)
	@scripts/sanitize address $(SANITIZED)

sanitize-short: need-sanitize
	@scripts/nightly rust-src
	@scripts/sanitize thread $(SANITIZED_SHORT)

miri: need-sanitize
	@scripts/nightly rust-src miri
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --target-dir $(TARGET)/miri --lib -- \
	    store::id store::record options:: the_host_name

soak: need-build
	$(CARGO) test --release --test soak -- --seconds $$(( $(MINUTES) * 60 ))

check: need-build
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --quiet

header:
	UPDATE=1 $(CARGO) test --quiet --test header

# ---- installing --------------------------------------------------------------------------------------------------

# Builds nothing: `sudo make install` would leave files of root's in the build directory.
install:
	@test -f $(RELEASE)/libsesscache.so || { echo 'Nothing is built yet. Run: make' >&2; exit 1; }
	install -d $(LIBRARYDIR)/pkgconfig $(INCLUDEDIR) $(EXAMPLEDIR)
	install -m 755 $(RELEASE)/libsesscache.so $(LIBRARYDIR)/libsesscache.so.$(VERSION)
	ln -sfn libsesscache.so.$(VERSION) $(LIBRARYDIR)/libsesscache.so.$(ABI)
	ln -sfn libsesscache.so.$(ABI) $(LIBRARYDIR)/libsesscache.so
	install -m 644 $(RELEASE)/libsesscache.a $(LIBRARYDIR)/
	install -m 644 include/sesscache.h $(INCLUDEDIR)/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' sesscache.pc.in \
	    >$(LIBRARYDIR)/pkgconfig/sesscache.pc
	chmod 644 $(LIBRARYDIR)/pkgconfig/sesscache.pc
	install -m 644 $(addprefix c-examples/,$(addsuffix .c,$(EXAMPLES))) $(EXAMPLEDIR)/
	$(if $(PROGRAM),install -D -m 755 $(RELEASE)/sesscache $(BINDIR)/sesscache)
	$(foreach page,$(MANPAGES),install -D -m 644 $(page) $(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)) &&) true
	@$(if $(DESTDIR),,echo 'Run ldconfig when $(LIBDIR) is one of its directories.')

uninstall:
	rm -f $(addprefix $(LIBRARYDIR)/,libsesscache.so libsesscache.so.$(ABI) libsesscache.so.$(VERSION) libsesscache.a) \
	    $(LIBRARYDIR)/pkgconfig/sesscache.pc $(INCLUDEDIR)/sesscache.h $(BINDIR)/sesscache \
	    $(foreach page,$(MANPAGES),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))
	rm -rf $(dir $(EXAMPLEDIR))

clean:
	$(CARGO) clean
	rm -rf $(STAGE)
