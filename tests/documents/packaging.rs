//! Version, ABI, symbols and the least version of Rust are written down in several places: they must agree.

use std::collections::BTreeSet;
use std::fs;
use support::root;

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
    let packaged: BTreeSet<(&str, &str)> =
        list.lines().filter(|line| line.starts_with(' ')).filter_map(|line| line.trim().split_once("@Base ")).collect();
    let reviewed = read("include/sesscache.symbols");
    let reviewed: BTreeSet<(&str, &str)> =
        reviewed.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' ')).collect();
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
    assert!(
        manifest.contains("incompatible_msrv = \"deny\""),
        "nothing would notice code that Rust {stated} cannot compile"
    );
}
