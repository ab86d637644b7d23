//! Version, ABI, symbols and the least version of Rust are written down in several places: they must agree.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;
use support::{root, run, Scratch};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `0.1` of `0.1.0`.
fn abi() -> String {
    let mut numbers = env!("CARGO_PKG_VERSION").split('.');
    format!("{}.{}", numbers.next().expect("major"), numbers.next().expect("minor"))
}

#[test]
fn the_debian_package_has_the_version_of_the_crate() {
    let changelog = read("debian/changelog");
    let first = changelog.lines().next().expect("a first line");
    let upstream = first.split(['(', '-']).nth(1).expect("a version");
    assert_eq!(upstream, env!("CARGO_PKG_VERSION"), "`make deb` makes packages of another version: {first}");
}

#[test]
fn the_debian_package_is_named_after_the_abi() {
    let package = format!("libsesscache{}", abi());
    assert!(
        read("debian/control").contains(&format!("\nPackage: {package}\n")),
        "two ABIs of the library would not be installable side by side: there is no package {package}"
    );
}

#[test]
fn the_debian_symbols_are_the_reviewed_ones() {
    let list = read(&format!("debian/libsesscache{}.symbols", abi()));
    let packaged: BTreeSet<&str> = list.lines().filter_map(|line| line.strip_prefix(' ')).collect();
    let reviewed = read("include/sesscache.symbols");
    let reviewed: Vec<(&str, &str)> =
        reviewed.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
    // dpkg-gensymbols lists the version nodes as symbols, too.
    let lines: Vec<String> = reviewed
        .iter()
        .flat_map(|(name, release)| {
            let node = format!("SESSCACHE_{}", release.strip_suffix(".0").unwrap_or(release));
            [format!("{name}@{node} {release}"), format!("{node}@{node} {release}")]
        })
        .collect();
    let reviewed: BTreeSet<&str> = lines.iter().map(|line| &**line).collect();
    assert_eq!(packaged, reviewed, "a program would be installable beside a library that lacks what it calls");
}

/// clippy's `incompatible_msrv` looks at every call of the standard library: it must know which version to hold it to.
#[test]
fn the_least_version_of_rust_is_stated_and_held() {
    let manifest = read("Cargo.toml");
    let stated = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let stated = stated.expect("Cargo.toml states no rust-version").trim_matches('"').to_owned();
    assert!(
        read("README.md").contains(&format!("Rust {stated} or later")),
        "README.md asks for another Rust than {stated}"
    );
    for package in ["cargo", "rustc"] {
        let depends = format!("{package} (>= {stated}) | {package}-web (>= {stated})");
        assert!(read("debian/control").contains(&depends), "debian/control does not have {depends}");
    }
    assert!(
        manifest.contains("incompatible_msrv = \"deny\""),
        "nothing would notice code that Rust {stated} cannot compile"
    );
}

/// What build.rs prints where openssl-sys has found this OpenSSL, in a directory with these symbols.
fn build_script_says(scratch: &Scratch, openssl: Option<&str>, symbols: &str) -> String {
    let (program, minute) = (scratch.text("build_script"), Duration::from_secs(60));
    if !scratch.path().join("build_script").exists() {
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2021", "-o", &program]).arg(root().join("build.rs"));
        run(&mut rustc, minute, "").expect_success("build.rs does not compile");
    }
    fs::create_dir_all(scratch.path().join("include")).expect("a directory");
    fs::write(scratch.path().join("include/sesscache.symbols"), symbols).expect("write a list");
    let mut command = Command::new(&program);
    command.current_dir(scratch.path()).env("CARGO_FEATURE_CAPI", "1").env("OUT_DIR", scratch.path());
    command.env_remove("DEP_OPENSSL_VERSION_NUMBER").env_remove("RUSTC_LINKER");
    command.envs(openssl.map(|version| ("DEP_OPENSSL_VERSION_NUMBER", version)));
    run(&mut command, minute, "").expect_success("the build script ends").stdout
}

/// openssl-sys accepts any libssl since 1.0.1: without this the first word would be rustc's, after a minute.
#[test]
fn the_build_script_refuses_openssl_before_3_in_one_sentence() {
    let scratch = Scratch::new("build_script");
    let said = |version: Option<&str>| {
        let output = build_script_says(&scratch, version, "sesscache_open 0.1.0\n");
        output.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect::<Vec<_>>().join(";")
    };
    for (version, name) in [(Some("1010117f"), "OpenSSL 1.1.1"), (None, "another libssl")] {
        let sentence = format!("sesscache needs OpenSSL 3.0 or later with its headers, and the build finds {name}.");
        assert_eq!(said(version), sentence);
    }
    for version in ["300000d0", "30500090", "30600050"] {
        assert_eq!(said(Some(version)), "", "OpenSSL {version} is refused");
    }
}

/// A program has the libssl that it was linked with: in a distribution that changes from OpenSSL 3 to 4, both libraries are there.
#[test]
fn libraries_for_two_majors_of_openssl_have_two_sonames() {
    let scratch = Scratch::new("sonames");
    for (version, suffix) in [("300000d0", ""), ("30600050", ""), ("40000030", "-ossl4")] {
        let said = build_script_says(&scratch, Some(version), "sesscache_open 0.1.0\n");
        let soname = format!("-Wl,-soname,libsesscache{suffix}.so.{}\n", abi());
        assert!(said.contains(&soname), "OpenSSL {version} does not give {soname}:\n{said}");
    }
}

/// A program that calls what 0.1.2 brought must not start with 0.1.1: ld.so compares the nodes.
#[test]
fn what_a_later_release_brings_has_a_node_of_its_own_after_the_first() {
    let scratch = Scratch::new("nodes");
    let symbols = "# a comment\nsesscache_open 0.1.0\nsesscache_new 0.1.10\nsesscache_get 0.1.0\nsesscache_old 0.1.2\n";
    build_script_says(&scratch, Some("300000d0"), symbols);
    let script = "SESSCACHE_0.1 { global: sesscache_open; sesscache_get; local: *; };\n\
        SESSCACHE_0.1.2 { global: sesscache_old; } SESSCACHE_0.1;\n\
        SESSCACHE_0.1.10 { global: sesscache_new; } SESSCACHE_0.1.2;\n";
    assert_eq!(fs::read_to_string(scratch.text("nodes")).expect("a version script"), script);
}

/// The table of docs/packaging.md, in the script that the build asks.
#[test]
fn a_liblmdb_that_destroys_live_mutexes_is_not_linked() {
    let scratch = Scratch::new("system-lmdb");
    let ask = |version: &str| {
        let file = format!("Name: LMDB\nDescription: as a distribution has it\nVersion: {version}\nLibs: -llmdb\n");
        fs::write(scratch.text("lmdb.pc"), file).expect("write a file of pkg-config");
        let mut command = Command::new(root().join("scripts/system-lmdb"));
        command.arg(scratch.text("out")).env("PKG_CONFIG_PATH", scratch.path());
        run(&mut command, Duration::from_secs(60), "")
    };
    for version in ["0.9.24", "0.9.25", "0.9.32", "0.9.35", "0.9.70"] {
        ask(version).expect_success(version);
        let linked = fs::read_to_string(scratch.text("out/liblmdb.pc")).expect("what lmdb-rkv-sys looks for");
        assert!(linked.contains(&format!("Version: {version}\nRequires: lmdb\n")), "{linked}");
    }
    for version in ["0.9.26", "0.9.29", "0.9.30", "0.9.31"] {
        let done = ask(version);
        assert_eq!(done.status.code(), Some(1), "LMDB {version} is linked");
        assert!(done.stderr.contains(&format!("LMDB {version} is installed, and 0.9.26 to 0.9.31 destroy mutexes")));
    }
    for version in ["0.9.23", "0.9.2", "1.0.0", "1.0.24"] {
        assert_eq!(ask(version).status.code(), Some(1), "nobody has tried LMDB {version}, and it is linked");
    }
}

#[test]
fn every_package_has_the_version_of_the_crate() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("packaging/rpm/sesscache.spec").contains(&format!("\nVersion:        {version}\n")));
    assert!(read("packaging/alpine/APKBUILD").contains(&format!("\npkgver={version}\n")));
    assert!(read("integrations/python/sesscache.py").contains(&format!("\n__version__ = \"{version}\"\n")));
    let mut sh = Command::new("sh");
    let done = run(sh.arg("-n").arg(root().join("packaging/alpine/APKBUILD")), Duration::from_secs(60), "");
    done.expect_success("APKBUILD is no shell script");
}
