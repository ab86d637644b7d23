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
    assert!(read("build.rs").contains(&format!("libsesscache.so.{}", abi())), "build.rs sets another soname");
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

/// openssl-sys accepts any libssl since 1.0.1: without this the first word would be rustc's, after a minute.
#[test]
fn the_build_script_refuses_openssl_before_3_in_one_sentence() {
    let (scratch, minute) = (Scratch::new("build_script"), Duration::from_secs(60));
    let program = scratch.text("build_script");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2021", "-o", &program]).arg(root().join("build.rs"));
    run(&mut rustc, minute, "").expect_success("build.rs does not compile");
    let said = |version: Option<&str>| {
        let mut command = Command::new(&program);
        command.env_remove("DEP_OPENSSL_VERSION_NUMBER");
        command.envs(version.map(|version| ("DEP_OPENSSL_VERSION_NUMBER", version)));
        let done = run(&mut command, minute, "").expect_success("the build script ends");
        done.stdout.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect::<Vec<_>>().join(";")
    };
    for (version, name) in [(Some("1010117f"), "OpenSSL 1.1.1"), (None, "another libssl")] {
        let sentence = format!("sesscache needs OpenSSL 3.0 or later with its headers, and the build finds {name}.");
        assert_eq!(said(version), sentence);
    }
    for version in ["300000d0", "30500090", "30600050"] {
        assert_eq!(said(Some(version)), "", "OpenSSL {version} is refused");
    }
}
