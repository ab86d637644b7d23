# Builds, tries out, tests and installs sesscache. GNU make.
#
#   make            build the library and lay out $(STAGE): header, library, pkg-config file, compiled examples
#   make demo       show in a table what the cache does for a server of four processes
#   make demo-chart write the demo's figures and its chart in docs/bench anew; README.md has the same figures
#   make test       every test: Rust, C programs, other TLS clients, valgrind
#   make test-servers   the tests of the integrations of SERVERS="httpd lighttpd hitch proftpd openssl-conf python"; nginx's is among `make test`.
#                   openssl-conf: Debian's own packages of STOCK="lighttpd vsftpd dovecot ..."
#   make faults     the tests of kills and damage at random moments, many times as often; about 45 minutes
#   make clients    run every TLS client there is on Debian, large ones too, and write docs/clients.md anew
#   make bench      measure the store and whole handshakes beside their peers, about 10 minutes; docs/bench has the last results
#   make bench-instructions   count the instructions of resumed handshakes under callgrind, which the machine's load does not change
#   make servers    Debian's servers with their own session caches and with sesscache, in one table; QUICK=1, JSON=FILE
#   make stock-servers   Debian's own packages of STOCK="lighttpd ..." with the configuration module: rows of docs/servers.md; root
#   make fuzz       fuzz every decoder and the C API: SECONDS=600 each, TARGETS=; fuzz-short: 5 seconds each
#   make sanitize   C programs under ThreadSanitizer, AddressSanitizer and valgrind, and what `make miri` runs; about half an
#                   hour. sanitize-short: a few under ThreadSanitizer
#   make miri       the pure modules under Miri
#   make soak       a server under everything at once, for MINUTES=10; `make test` has 20 seconds of it
#   make check      formatting, lints, documentation
#   make header     write include/sesscache.h and the lists in man/ anew from src/
#   make manual     write man/sesscache.1 anew from the program
#   make install    into $(DESTDIR)$(PREFIX), after `make`; `make install-strip` leaves out what only debuggers read;
#                   `make uninstall` takes it away. SYSTEM_LMDB=1, in each of these, links the system's LMDB
#   make deb        Debian packages, into $(TARGET)/deb; `make test-deb` installs them in a scratch root and uses them
#   make test-rpm   builds RPM packages, and uses them in a scratch root
#   make test-arm64 builds for arm64 and runs it under qemu-user; root, 10 minutes of CPU
#   make test-system-lmdb    builds with SYSTEM_LMDB=1 and resumes sessions
#   make vendor     copies of all crates into vendor/; then `make OFFLINE=1` builds without a network
#   make test-reproducible   builds in two directories, online and from vendor/, must give the same library
#   make test-cargo-c        `cargo cinstall` must install what `make install` does; builds cargo-c first if need be
#   make test-least-rust     everything compiles with the least version of Rust; rustup
#   make test-releases       the two commands in minimal systems of RELEASES="trixie", and docs/releases.md; SHORT=1: fewer tests,
#                            KEEP=1: the systems stay
#   make deny       licences, sources and advisories of all crates; builds cargo-deny first if need be
#   make clean

#
# For another architecture: RUST_TARGET=aarch64-unknown-linux-gnu CROSS_COMPILE=aarch64-linux-gnu- and EMULATOR, which runs its
# programs; `make test-arm64` does it.

PREFIX  ?= /usr/local
LIBDIR  ?=
DESTDIR ?=
CARGO   ?= cargo
RUST_TARGET ?=
CROSS_COMPILE ?=
EMULATOR ?=
ifdef CROSS_COMPILE
CC := $(CROSS_COMPILE)gcc
export LD := $(CROSS_COMPILE)ld
export NM := $(CROSS_COMPILE)nm
export AR := $(CROSS_COMPILE)ar
export OBJCOPY := $(CROSS_COMPILE)objcopy
export STRIP := $(CROSS_COMPILE)strip
export PKG_CONFIG := $(CROSS_COMPILE)pkg-config
export PKG_CONFIG_ALLOW_CROSS := 1
endif
PKG_CONFIG ?= pkg-config
# What hardens C, as far as this compiler knows it: canaries, probes of the stack, and CET or its like of arm64.
HARDENING = $(shell for flag in -fstack-protector-strong -fstack-clash-protection -fcf-protection -mbranch-protection=standard; \
              do $(CC) $$flag -c -x c -o /dev/null /dev/null 2>/dev/null && echo $$flag; done)
ifeq ($(origin CFLAGS),undefined)
CFLAGS   := -O2 -g $(HARDENING)
endif

override LIBDIR := $(or $(LIBDIR),$(PREFIX)/lib)
BINDIR     := $(DESTDIR)$(PREFIX)/bin
INCLUDEDIR := $(DESTDIR)$(PREFIX)/include
SHAREDIR   := $(DESTDIR)$(PREFIX)/share
EXAMPLEDIR := $(SHAREDIR)/doc/sesscache/examples
LIBRARYDIR := $(DESTDIR)$(LIBDIR)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# While the major version is 0 every minor version is an ABI of its own.
ABI     := $(shell echo $(VERSION) | cut -d. -f1-2)
# build.rs chooses it: libsesscache.so.0.1 for OpenSSL 3, another one for a later major (docs/packaging.md).
SONAME   = $(or $(shell readlink '$(STAGE)/lib/libsesscache.so'),libsesscache.so.$(ABI))
REALNAME = $(SONAME:.$(ABI)=.$(VERSION))

TARGET   := $(or $(CARGO_TARGET_DIR),target)
RELEASE  := $(TARGET)/$(if $(RUST_TARGET),$(RUST_TARGET)/)release
STAGE    := $(TARGET)/stage
EXAMPLES := $(patsubst c-examples/%.c,%,$(wildcard c-examples/*.c))
PROGRAM  := sesscache
FEATURES := --features capi,cli
# Tests, examples and lints: all there is.
ALL_FEATURES := --features capi,cli,openssl
BENCHES := --package sesscache-benches
# `sesscache demo`: the script, and the server and the client that it runs.
DEMO        := libexec/sesscache/demo libexec/sesscache/prefork_server libexec/sesscache/resume_client
COMPLETIONS := share/bash-completion/completions/sesscache share/zsh/site-functions/_sesscache \
               share/fish/vendor_completions.d/sesscache.fish
# The configuration module of OpenSSL, below $(LIBDIR). Not in OpenSSL's own directory of modules: that is for providers.
MODULE   := sesscache/openssl_conf.so
MANPAGES := $(wildcard man/*.[1-8])
# What goes with the program, as paths below the stage and below $(PREFIX): completions, and what it runs.
EXTRAS   := $(if $(PROGRAM),$(COMPLETIONS) $(DEMO))

# No path of this machine goes into the library: built in another directory, by another user or from vendor/ it is the
# same, byte for byte. Looked up by builds only: `sudo make install` may have no rustc. A RUSTFLAGS in the environment
# takes the place of these.
CRATES   = $(shell ls -d '$(or $(CARGO_HOME),$(HOME)/.cargo)'/registry/src/* 2>/dev/null)
SYSROOT  = $(shell rustc --print sysroot)
RUSTC_ID = $(shell rustc -vV | sed -n 's/^commit-hash: //p')
comma    := ,
# Of a target that links musl statically rustc makes no shared library.
MUSL     = $(findstring musl,$(or $(RUST_TARGET),$(shell rustc -vV | sed -n 's/^host: //p')))
REMAP    = $(CURDIR)=/usr/src/sesscache $(foreach dir,$(CRATES),$(dir)=/usr/src/sesscache/vendor) \
            $(SYSROOT)/lib/rustlib/src/rust=/rustc/$(RUSTC_ID)
SAME     = --config 'build.rustflags=[$(foreach map,$(REMAP),"--remap-path-prefix=$(map)"$(comma)) \
              $(foreach flag,$(LDFLAGS),"-Clink-arg=$(flag)"$(comma)) $(if $(MUSL),"-Ctarget-feature=-crt-static")]' \
            --config 'env.CFLAGS.value="$(CPPFLAGS) $(CFLAGS) $(addprefix -ffile-prefix-map=,$(REMAP))"' --config env.CFLAGS.force=true
TARGETED = $(if $(RUST_TARGET),--target $(RUST_TARGET) --config 'target.$(RUST_TARGET).linker="$(CC)"')
ifdef OFFLINE
CRATES_FROM := --offline --locked --config 'source.crates-io.replace-with="vendor"' \
            --config 'source.vendor.directory="$(CURDIR)/vendor"'
endif

# SYSTEM_LMDB=1 links the system's liblmdb. cargo reads no .cargo/config.toml of this tree, which forbids that, when it
# starts elsewhere.
SYSTEM_LMDB ?=
ifneq ($(SYSTEM_LMDB),)
LMDB := lmdb
CARGO_BUILD = scripts/system-lmdb $(TARGET)/system-lmdb && cd / && \
              PKG_CONFIG_PATH="$(abspath $(TARGET))/system-lmdb:$$PKG_CONFIG_PATH" \
              $(CARGO) build --manifest-path $(CURDIR)/Cargo.toml --target-dir $(abspath $(TARGET))
else
LMDB :=
CARGO_BUILD = $(CARGO) build
endif

WARNINGS := -std=c11 -Wall -Wextra -Wpedantic -Werror
STAGED_PKG_CONFIG = PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig $(PKG_CONFIG)

# The least version of Rust, for everything.
LEAST      := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# What a step needs: a command, a pkg-config module or a file, and the Debian package that brings it. cargo of Debian 12 is
# too old and cargo-web is not. cargo downloads over TLS.
NEED_BUILD := '$(firstword $(CARGO))>=$(LEAST):cargo|cargo-web' \
              $(if $(OFFLINE),,/etc/ssl/certs/ca-certificates.crt:ca-certificates) \
              cc:gcc readelf:binutils /usr/include/stdio.h:libc6-dev pkg-config:pkg-config libssl:libssl-dev
NEED_DEMO  := $(NEED_BUILD) openssl:openssl
# nginx, with what its headers need and the modules that the tests load.
NEED_NGINX := /usr/sbin/nginx:nginx /usr/share/nginx/src/configure:nginx-dev libpcre2-8:libpcre2-dev zlib:zlib1g-dev \
              /usr/lib/nginx/modules/ngx_mail_module.so:libnginx-mod-mail \
              /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream
NEED_TEST  := $(NEED_DEMO) g++:g++ valgrind:valgrind,libc6-dbg gnutls-cli:gnutls-bin python3:python3 \
              nm:binutils strace:strace setpriv:util-linux unshare:util-linux mount:mount mkfs.btrfs:btrfs-progs \
              curl:curl libcurl:libcurl4-openssl-dev nss:libnss3-dev wolfssl:libwolfssl-dev \
              /usr/include/mbedtls/ssl.h:libmbedtls-dev \
              /usr/include/lmdb.h:liblmdb-dev cmake:cmake meson:meson ninja:ninja-build mandoc:mandoc man:man-db \
              $(NEED_NGINX)

NEED_SERVERS := $(NEED_DEMO) make:make $(NEED_NGINX) /usr/sbin/apache2:apache2 apxs:apache2-dev \
                redis-server:redis-server

NEED_TEST_SHORT := $(NEED_DEMO) python3:python3

# What a server needs for its build, its own script installs.
NEED_TEST_SERVERS := $(NEED_DEMO) make:make python3:python3

NEED_CLIENTS := $(NEED_TEST) node:nodejs javac:default-jdk-headless java:default-jre-headless go:golang-go \
              chromium:chromium certutil:libnss3-tools
NEED_BENCH := $(NEED_BUILD) redis-server:redis-server memcached:memcached /usr/include/gdbm.h:libgdbm-dev

NEED_INSTRUCTIONS := $(NEED_BUILD) valgrind:valgrind,libc6-dbg
NEED_SANITIZE := $(NEED_DEMO) g++:g++ readelf:binutils valgrind:valgrind,libc6-dbg

NEED_RELEASES := mmdebstrap:mmdebstrap unshare:util-linux

NEED_DEB   := $(NEED_BUILD) dh:debhelper dpkg-buildpackage:dpkg-dev lintian:lintian man:man-db openssl:openssl \
              $(NEED_NGINX) /usr/sbin/apache2:apache2 apxs:apache2-dev

.PHONY: all stage fetch demo demo-chart test faults clients bench servers fuzz fuzz-short sanitize sanitize-short miri soak check header manual
.PHONY: install-strip vendor test-reproducible test-cargo-c test-least-rust deny deb test-deb install uninstall clean FORCE
.PHONY: test-rpm test-arm64 test-system-lmdb need-rpm need-arm64 need-system-lmdb
.PHONY: stock-servers test-servers need-test-servers test-short test-releases need-releases
.PHONY: need-build need-demo need-test need-clients need-bench need-servers need-sanitize need-deb
.DELETE_ON_ERROR:

all: need-build stage

need-build: ; @scripts/need $(NEED_BUILD)
need-demo:  ; @scripts/need $(NEED_DEMO)
need-test:  ; @scripts/need $(NEED_TEST)
need-test-short: ; @scripts/need $(NEED_TEST_SHORT)
need-test-servers: ; @scripts/need $(NEED_TEST_SERVERS)
need-clients: ; @scripts/need $(NEED_CLIENTS)
need-bench: ; @scripts/need $(NEED_BENCH)
need-instructions: ; @scripts/need $(NEED_INSTRUCTIONS)
need-servers: ; @scripts/need $(NEED_SERVERS)
need-sanitize: ; @scripts/need $(NEED_SANITIZE)
need-releases: ; @scripts/need $(NEED_RELEASES)
need-deb:   ; @scripts/need $(NEED_DEB)
need-rpm:   ; @scripts/need $(NEED_DEMO) rpmbuild:rpm
need-arm64: ; @scripts/need $(NEED_RELEASES)
need-system-lmdb: ; @scripts/need $(NEED_DEMO) lmdb:liblmdb-dev

# ---- the staged prefix -------------------------------------------------------------------------------------------

stage: $(STAGE)/lib/libsesscache.so $(STAGE)/lib/libsesscache.a $(STAGE)/include/sesscache.h $(STAGE)/lib/pkgconfig/sesscache.pc \
       $(STAGE)/lib/$(MODULE) $(addprefix $(STAGE)/,$(addprefix bin/,$(EXAMPLES) $(PROGRAM)) $(EXTRAS))

# Cargo knows best whether anything changed; when nothing did, the file keeps its time and nothing below is remade.
$(RELEASE)/libsesscache.so: fetch FORCE
	$(CARGO_BUILD) --release $(FEATURES) $(SAME) $(TARGETED) $(CRATES_FROM)

# The crates have a place before the build looks for it.
fetch:
	@$(if $(OFFLINE)$(CRATES),:,$(CARGO) fetch)

$(STAGE)/lib/libsesscache.so: $(RELEASE)/libsesscache.so
	@mkdir -p $(@D)
	soname=$$(readelf -d $< | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p') && install -m 755 $< $(@D)/$$soname && ln -sfn $$soname $@

$(STAGE)/lib/libsesscache.a: $(RELEASE)/libsesscache.so scripts/static-library include/sesscache.symbols
	scripts/static-library $(RELEASE)/libsesscache.a include/sesscache.symbols $@

$(STAGE)/include/sesscache.h: include/sesscache.h
	install -D -m 644 $< $@

# Whoever links the static library needs the LMDB that is not in it.
FILL_LMDB := $(if $(LMDB),-e 's|@LMDB@|$(LMDB)|',-e '/^Requires.private: @LMDB@/d' -e 's|;@LMDB@||')

# ${pcfiledir} makes the staged prefix work wherever the tree is moved.
$(STAGE)/lib/pkgconfig/sesscache.pc: sesscache.pc.in Cargo.toml Makefile
	mkdir -p $(@D)
	sed -e 's|@PREFIX@|$${pcfiledir}/../..|' -e 's|@LIBDIR@|$${prefix}/lib|' -e 's|@VERSION@|$(VERSION)|' $(FILL_LMDB) $< >$@

STAGED_LIBRARY := $(addprefix $(STAGE)/,include/sesscache.h lib/libsesscache.so lib/pkgconfig/sesscache.pc)
compile_example = mkdir -p $(@D) && \
    $(CC) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) $$($(STAGED_PKG_CONFIG) --cflags sesscache) $< -o $@ $(LDFLAGS) \
    $$($(STAGED_PKG_CONFIG) --libs sesscache)

$(STAGE)/bin/%: c-examples/%.c $(STAGED_LIBRARY)
	$(compile_example)

# The headers are asked now, not when this file is read: they may have come with what a step needs.
$(STAGE)/bin/quic_server: c-examples/quic_server.c $(STAGED_LIBRARY)
	@if $(CC) $(CPPFLAGS) -M $$($(STAGED_PKG_CONFIG) --cflags sesscache) $< >/dev/null 2>&1; then set -x; $(compile_example); \
	else echo 'Left out: $(@F), which needs OpenSSL 3.5 or later'; fi

# Linked with libcrypto only, see its source. It stays: OpenSSL unloads modules while it may still call what they have registered.
$(STAGE)/lib/$(MODULE): $(wildcard integrations/openssl-conf/*.[ch]) $(STAGE)/include/sesscache.h $(STAGE)/lib/libsesscache.so
	mkdir -p $(@D)
	$(CC) $(WARNINGS) -DSESSCACHE_SONAME='"$(SONAME)"' -fPIC -shared -fvisibility=hidden $(CPPFLAGS) $(CFLAGS) \
	    -I$(STAGE)/include $(filter %.c,$^) -o $@ \
	    $(LDFLAGS) -Wl,-z,nodelete -Wl,-z,defs -Wl,-z,relro -Wl,-z,now $$($(PKG_CONFIG) --cflags --libs libcrypto) -ldl -lpthread

$(STAGE)/bin/sesscache: $(RELEASE)/libsesscache.so
	install -D -m 755 $(RELEASE)/sesscache $@

$(STAGE)/libexec/sesscache/demo: scripts/demo
	install -D -m 755 $< $@

$(STAGE)/libexec/sesscache/%: $(STAGE)/bin/%
	install -D -m 755 $< $@

# The shell's name is the first part of the path that tells: share/bash-completion, share/zsh, share/fish.
$(addprefix $(STAGE)/,$(COMPLETIONS)): $(STAGE)/share/%: $(STAGE)/bin/sesscache
	mkdir -p $(@D)
	$(EMULATOR) $< completions $(firstword $(subst -, ,$(subst /, ,$*))) >$@

# ---- trying out and testing --------------------------------------------------------------------------------------

demo: need-demo
	@$(MAKE) --no-print-directory --silent stage
	@$(STAGE)/bin/sesscache demo

demo-chart: need-demo stage
	$(STAGE)/bin/sesscache demo --json >$(TARGET)/demo.json
	$(CARGO) bench --quiet $(BENCHES) --bench demo $(SAME) $(CRATES_FROM) <$(TARGET)/demo.json

test: need-test stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --no-fail-fast $(ALL_FEATURES) $(CRATES_FROM)

# What a release of OpenSSL could break first.
test-short: need-test-short stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test --no-fail-fast $(ALL_FEATURES) $(CRATES_FROM) --test tls

test-servers: $(addprefix test-server-,$(or $(SERVERS),httpd lighttpd hitch proftpd openssl-conf python))

test-server-%: need-test-servers stage
	@echo '==> $*'
	@SESSCACHE_STAGE='$(abspath $(STAGE))' integrations/$*/test $(if $(filter openssl-conf,$*),$(STOCK))

test-server-nginx: need-test stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test $(ALL_FEATURES) $(CRATES_FROM) --test nginx_module

# These are built from their source packages first, and again when the patch has changed.
test-server-lighttpd test-server-hitch: test-server-%: $(TARGET)/integrations/%.built

$(TARGET)/integrations/%.built: integrations/%/build integrations/%/sesscache.patch | stage
	STAGE='$(abspath $(STAGE))' integrations/$*/build '$(abspath $(TARGET))/integrations/$*/prefix'
	@touch $@

faults: need-test stage
	SESSCACHE_LONG=1 SESSCACHE_MUTATIONS=10000 SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test $(ALL_FEATURES) \
	    --no-fail-fast --test faults -- --nocapture

clients: need-clients stage
	UPDATE=1 SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test $(ALL_FEATURES) --test clients -- --include-ignored

bench: need-bench
	$(CARGO) bench $(BENCHES) --bench store $(SAME) $(CRATES_FROM)
	$(CARGO) bench $(BENCHES) --bench handshake $(SAME) $(CRATES_FROM)
	$(CARGO) bench $(BENCHES) --bench report $(SAME) $(CRATES_FROM)

bench-instructions: need-instructions
	$(CARGO) bench --quiet $(BENCHES) --bench handshake $(SAME) $(CRATES_FROM) -- instructions

servers: need-servers stage
	SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) bench --quiet $(BENCHES) --bench servers -- \
	    $(if $(QUICK),--quick) $(if $(JSON),--json '$(abspath $(JSON))') $(SERVERS)

stock-servers: need-test-servers stage
	@SESSCACHE_STAGE='$(abspath $(STAGE))' integrations/openssl-conf/test --table $(STOCK)

# ---- that it never hurts its host --------------------------------------------------------------------------------

SECONDS ?= 600
MINUTES ?= 10
TARGETS ?=
# Programs that a sanitizer has most to say about: threads, forks, handles, records.
SANITIZED_SHORT := fork_and_threads opaque_records
SANITIZED := attach_and_detach early_data fork_and_threads host_state_untouched lifecycle opaque_records sessions_in_memory

fuzz: need-sanitize
	@scripts/nightly
	@scripts/fuzz $(SECONDS) $(TARGETS)

fuzz-short: need-sanitize
	@scripts/nightly
	@FUZZ_FLAGS='-seed=1 -runs=20000' scripts/fuzz 5 $(TARGETS)

sanitize: need-sanitize stage
	@scripts/nightly rust-src
	@scripts/sanitize thread $(SANITIZED)
	@scripts/sanitize address $(SANITIZED)
	SESSCACHE_LONG=1 SESSCACHE_STAGE='$(abspath $(STAGE))' $(CARGO) test $(ALL_FEATURES) --no-fail-fast --test valgrind -- --nocapture
	@$(MAKE) --no-print-directory miri

sanitize-short: need-sanitize
	@scripts/nightly rust-src
	@scripts/sanitize thread $(SANITIZED_SHORT)

miri: need-sanitize
	@scripts/nightly rust-src miri
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --features capi --target-dir $(TARGET)/miri --lib -- \
	    store::id store::siphash store::record store::local::ring options:: the_host_name stats:: status:: log:: sys::memory a_generation_is_known

soak: need-build
	$(CARGO) test --release $(ALL_FEATURES) --test soak -- --seconds $$(( $(MINUTES) * 60 ))

check: need-build
	$(CARGO) fmt --check --all
	$(CARGO) fmt --check --manifest-path tests/clients/rustls/Cargo.toml
	$(CARGO) fmt --check --manifest-path tests/allocator/Cargo.toml
	$(CARGO) clippy --workspace --all-targets $(ALL_FEATURES) --quiet -- -D warnings
	$(CARGO) clippy --lib --quiet -- -D warnings
	$(CARGO) clippy --lib --features openssl --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --features openssl --quiet

# ---- without a network, and the same anywhere -----------------------------------------------------------------------

vendor:
	$(CARGO) vendor --quiet --locked --versioned-dirs vendor >/dev/null

test-reproducible: need-build
	scripts/test-reproducible

test-least-rust: need-build
	rustup toolchain install --profile minimal $(LEAST)
	$(CARGO) +$(LEAST) check --quiet --locked --workspace --all-targets $(ALL_FEATURES) --target-dir $(TARGET)/least

# The advisories come as a git repository: without a way to it, CHECKS="bans licenses sources".
CHECKS ?= advisories bans licenses sources
deny:
	scripts/cargo-tool cargo-deny 0.20.2 $(abspath $(TARGET)/tools)
	$(TARGET)/tools/bin/cargo-deny check $(CHECKS)

RELEASES ?= trixie
test-releases: need-releases stage
	@SHORT='$(SHORT)' KEEP='$(KEEP)'; export SHORT KEEP; $(foreach release,$(RELEASES),scripts/test-release $(release) \
	    '$(abspath $(TARGET))/releases/$(release)' &&) true

# cargo-c takes minutes to build, once.
test-cargo-c: need-build stage
	scripts/cargo-tool cargo-c 0.10.24+cargo-0.98.0 $(abspath $(TARGET)/tools)
	scripts/test-cargo-c $(abspath $(TARGET)/tools) $(abspath $(TARGET))

# ---- packages ----------------------------------------------------------------------------------------------------

deb: need-deb
	scripts/make-deb $(TARGET)/deb

test-deb: need-deb deb
	scripts/test-deb $(TARGET)/deb

test-rpm: need-rpm
	scripts/test-rpm $(TARGET)/rpm

test-arm64: need-arm64
	scripts/test-arm64 $(TARGET)/arm64

# With the liblmdb of this machine, where it is one that can be had.
test-system-lmdb: need-system-lmdb
	$(MAKE) --no-print-directory stage SYSTEM_LMDB=1 CARGO_TARGET_DIR='$(abspath $(TARGET))/with-system-lmdb'
	scripts/test-system-lmdb '$(abspath $(TARGET))/with-system-lmdb/stage'

header:
	UPDATE=1 $(CARGO) test --quiet $(ALL_FEATURES) --test documents -- header:: manual_pages::

manual:
	UPDATE=1 $(CARGO) test --quiet $(ALL_FEATURES) --test program -- manual::

# ---- installing --------------------------------------------------------------------------------------------------

manpage = $(SHAREDIR)/man/man$(subst .,,$(suffix $(1)))/$(notdir $(1))
# From the directory of the CMake files to that of the header.
INCLUDE := $(shell realpath -m --relative-to='$(LIBDIR)/cmake/sesscache' '$(PREFIX)/include')
fill = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@ABI@|$(ABI)|' -e 's|@SONAME@|$(SONAME)|' -e 's|@REALNAME@|$(REALNAME)|' \
       -e 's|@INCLUDE@|$(INCLUDE)|' $(FILL_LMDB) $(1) >$(2) && chmod 644 $(2)

INSTALLED = $(addprefix $(LIBRARYDIR)/,libsesscache.so $(SONAME) $(REALNAME) libsesscache.a $(MODULE) \
              pkgconfig/sesscache.pc) $(INCLUDEDIR)/sesscache.h $(if $(PROGRAM),$(BINDIR)/sesscache) \
            $(foreach page,$(MANPAGES),$(call manpage,$(page))) $(addprefix $(DESTDIR)$(PREFIX)/,$(EXTRAS))

# Builds nothing: `sudo make install` would leave files of root's in the build directory.
install:
	@test -f $(STAGE)/lib/libsesscache.a || { echo 'Nothing is built yet. Run: make' >&2; exit 1; }
	install -d $(LIBRARYDIR)/pkgconfig $(LIBRARYDIR)/cmake/sesscache $(INCLUDEDIR) $(EXAMPLEDIR)
	install -m 755 $(STAGE)/lib/libsesscache.so $(LIBRARYDIR)/$(REALNAME)
	ln -sfn $(REALNAME) $(LIBRARYDIR)/$(SONAME)
	ln -sfn $(SONAME) $(LIBRARYDIR)/libsesscache.so
	install -m 644 $(STAGE)/lib/libsesscache.a $(LIBRARYDIR)/
	install -D -m 644 $(STAGE)/lib/$(MODULE) $(LIBRARYDIR)/$(MODULE)
	install -m 644 include/sesscache.h $(INCLUDEDIR)/
	$(call fill,sesscache.pc.in,$(LIBRARYDIR)/pkgconfig/sesscache.pc)
	$(call fill,packaging/cmake/sesscache-config.cmake.in,$(LIBRARYDIR)/cmake/sesscache/sesscache-config.cmake)
	$(call fill,packaging/cmake/sesscache-config-version.cmake.in,$(LIBRARYDIR)/cmake/sesscache/sesscache-config-version.cmake)
	install -m 644 LICENSE-APACHE LICENSE-MIT $(SHAREDIR)/doc/sesscache/
	install -m 644 $(addprefix c-examples/,$(addsuffix .c,$(EXAMPLES))) $(EXAMPLEDIR)/
	$(if $(PROGRAM),install -D -m 755 $(RELEASE)/sesscache $(BINDIR)/sesscache)
	@$(foreach page,$(MANPAGES),install -d $(dir $(call manpage,$(page))) && $(if $(shell test -L $(page) && echo link),cp -Pf,install -m 644) $(page) $(call manpage,$(page)) &&) true
	@$(foreach file,$(EXTRAS),install -D -m $(if $(filter libexec/%,$(file)),755,644) $(STAGE)/$(file) $(DESTDIR)$(PREFIX)/$(file) &&) true
	@$(if $(DESTDIR),,scripts/ldconfig-hint '$(LIBDIR)')

STRIP ?= strip
# scripts/static-library has stripped that one.
install-strip: install
	$(STRIP) --strip-unneeded $(LIBRARYDIR)/$(REALNAME) $(LIBRARYDIR)/$(MODULE) $(if $(PROGRAM),$(BINDIR)/sesscache) \
	    $(addprefix $(DESTDIR)$(PREFIX)/,$(filter-out %/demo,$(filter libexec/%,$(EXTRAS))))

uninstall:
	rm -f $(INSTALLED)
	rm -rf $(LIBRARYDIR)/cmake/sesscache $(SHAREDIR)/doc/sesscache $(DESTDIR)$(PREFIX)/libexec/sesscache
	@rmdir --ignore-fail-on-non-empty $(LIBRARYDIR)/pkgconfig $(LIBRARYDIR)/cmake $(LIBRARYDIR)/sesscache 2>/dev/null || true
	@cd $(DESTDIR)$(PREFIX) && rmdir -p --ignore-fail-on-non-empty share/doc libexec include bin \
	    $(patsubst $(PREFIX)/%,%,$(filter $(PREFIX)/%,$(LIBDIR))) \
	    $(sort $(patsubst $(SHAREDIR)/%/,share/%,$(dir $(filter $(SHAREDIR)/%,$(INSTALLED))))) 2>/dev/null || true

clean:
	$(CARGO) clean
	rm -rf $(STAGE)
