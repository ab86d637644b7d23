# Builds, tries out, tests and installs sesscache. GNU make.
#
#   make            build the library and lay out $(STAGE): header, library, pkg-config file, compiled examples
#   make demo       show in a table what the cache does for a server of four processes
#   make test       every test: Rust, C programs, other TLS clients, valgrind
#   make faults     the tests of kills and damage at random moments, many times as often; about 10 minutes
#   make clients    run every TLS client there is on Debian, large ones too, and write docs/clients.md anew
#   make bench      measure the store and whole handshakes beside their peers, about 10 minutes; docs/bench has the last results
#   make check      formatting, lints, documentation
#   make header     write include/sesscache.h anew from src/
#   make manual     write man/sesscache.1 anew from the program
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
PROGRAM  := sesscache
MANPAGES := $(wildcard man/*.[1-8])

# `sesscache demo`: the script, and the server and the client that it runs.
DEMO        := libexec/sesscache/demo libexec/sesscache/prefork_server libexec/sesscache/resume_client
COMPLETIONS := share/bash-completion/completions/sesscache share/zsh/site-functions/_sesscache \
               share/fish/vendor_completions.d/sesscache.fish

WARNINGS := -std=c11 -Wall -Wextra -Wpedantic -Werror
STAGED_PKG_CONFIG := PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig pkg-config

# What a step needs: a command, a pkg-config module or a file, and the Debian package that brings it.
NEED_BUILD := cc:gcc /usr/include/stdio.h:libc6-dev pkg-config:pkg-config libssl:libssl-dev
NEED_DEMO  := $(NEED_BUILD) openssl:openssl
NEED_TEST  := $(NEED_DEMO) g++:g++ valgrind:valgrind,libc6-dbg gnutls-cli:gnutls-bin python3:python3 \
              nm:binutils strace:strace setpriv:util-linux unshare:util-linux mount:mount \
              curl:curl libcurl:libcurl4-openssl-dev nss:libnss3-dev wolfssl:libwolfssl-dev \
              /usr/include/mbedtls/ssl.h:libmbedtls-dev

NEED_CLIENTS := $(NEED_TEST) node:nodejs javac:default-jdk-headless java:default-jre-headless go:golang-go \
              chromium:chromium certutil:libnss3-tools
FAULTS     := killed_workers stopped_process no_room damaged_store shared_directory
NEED_BENCH := $(NEED_BUILD) redis-server:redis-server memcached:memcached /usr/include/gdbm.h:libgdbm-dev

.PHONY: all stage demo test faults clients bench check header manual install uninstall clean need-build need-demo need-test need-clients need-bench FORCE
.DELETE_ON_ERROR:

all: need-build stage

need-build: ; @scripts/need $(NEED_BUILD)
need-demo:  ; @scripts/need $(NEED_DEMO)
need-test:  ; @scripts/need $(NEED_TEST)
need-clients: ; @scripts/need $(NEED_CLIENTS)
need-bench: ; @scripts/need $(NEED_BENCH)

# ---- the staged prefix -------------------------------------------------------------------------------------------

stage: $(STAGE)/lib/libsesscache.so $(STAGE)/include/sesscache.h $(STAGE)/lib/pkgconfig/sesscache.pc \
       $(addprefix $(STAGE)/,$(addprefix bin/,$(EXAMPLES) $(PROGRAM)) $(DEMO) $(COMPLETIONS))

# Cargo knows best whether anything changed; when nothing did, the file keeps its time and nothing below is remade.
$(RELEASE)/libsesscache.so: FORCE
	$(CARGO) build --release --quiet --features cli

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

$(STAGE)/libexec/sesscache/demo: scripts/demo
	install -D -m 755 $< $@

$(STAGE)/libexec/sesscache/%: $(STAGE)/bin/%
	install -D -m 755 $< $@

# The shell's name is the first part of the path that tells: share/bash-completion, share/zsh, share/fish.
$(addprefix $(STAGE)/,$(COMPLETIONS)): $(STAGE)/share/%: $(STAGE)/bin/sesscache
	mkdir -p $(@D)
	$< completions $(firstword $(subst -, ,$(subst /, ,$*))) >$@

# ---- trying out and testing --------------------------------------------------------------------------------------

demo: need-demo
	@$(MAKE) --no-print-directory --silent stage
	@$(STAGE)/bin/sesscache demo

test: need-test stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --no-fail-fast --features cli

faults: need-test stage
	SESSCACHE_LONG=1 SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --features cli --no-fail-fast \
	    $(addprefix --test ,$(FAULTS)) -- --nocapture

clients: need-clients stage
	UPDATE=1 SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --test clients -- --include-ignored

bench: need-bench
	$(CARGO) bench --bench store
	$(CARGO) bench --bench handshake
	$(CARGO) bench --bench report

check: need-build
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/clients/rustls/Cargo.toml
	$(CARGO) clippy --all-targets --features cli --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --quiet

header:
	UPDATE=1 $(CARGO) test --quiet --test header

manual:
	UPDATE=1 $(CARGO) test --quiet --features cli --test manual

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
	install -D -m 755 $(RELEASE)/sesscache $(BINDIR)/sesscache
	$(foreach file,$(DEMO),install -D -m 755 $(STAGE)/$(file) $(DESTDIR)$(PREFIX)/$(file) &&) true
	$(foreach file,$(COMPLETIONS),install -D -m 644 $(STAGE)/$(file) $(DESTDIR)$(PREFIX)/$(file) &&) true
	$(foreach page,$(MANPAGES),install -D -m 644 $(page) $(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)) &&) true
	@$(if $(DESTDIR),,echo 'Run ldconfig when $(LIBDIR) is one of its directories.')

uninstall:
	rm -f $(addprefix $(LIBRARYDIR)/,libsesscache.so libsesscache.so.$(ABI) libsesscache.so.$(VERSION) libsesscache.a) \
	    $(LIBRARYDIR)/pkgconfig/sesscache.pc $(INCLUDEDIR)/sesscache.h $(BINDIR)/sesscache \
	    $(foreach page,$(MANPAGES),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page)))
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,$(DEMO) $(COMPLETIONS))
	rm -rf $(dir $(EXAMPLEDIR)) $(DESTDIR)$(PREFIX)/libexec/sesscache

clean:
	$(CARGO) clean
	rm -rf $(STAGE)
