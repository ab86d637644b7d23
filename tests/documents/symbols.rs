//! What the shared library shows to the linker is its ABI: a reviewed list, and nothing besides.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{root, run, stage};

/// What a tool of binutils says about a file.
fn about(tool: &str, arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(tool);
    command.args(arguments).arg(file).env("LC_ALL", "C");
    run(&mut command, Duration::from_secs(60), "").expect_success("binutils cannot read the file").stdout
}

/// What it says about the staged library.
fn about_library(tool: &str, arguments: &[&str]) -> String {
    about(tool, arguments, &stage().join("lib/libsesscache.so"))
}

/// What the library defines for others, in order: names with their versions, and the version nodes themselves.
fn defined() -> Vec<String> {
    let table = about_library("nm", &["-D", "--defined-only"]);
    let mut names: Vec<String> =
        table.lines().filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect();
    names.sort();
    names
}

/// The version node of the symbols that a release brought: `SESSCACHE_0.1` of 0.1.0, `SESSCACHE_0.1.2` of 0.1.2.
fn node(release: &str) -> String {
    format!("SESSCACHE_{}", release.strip_suffix(".0").unwrap_or(release))
}

/// The lines of the reviewed list: a name and the version that brought it.
fn reviewed() -> Vec<(String, String)> {
    let list = fs::read_to_string(root().join("include/sesscache.symbols")).expect("include/sesscache.symbols");
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, version] => (name.to_owned(), version.to_owned()),
            _ => panic!("include/sesscache.symbols: not a name and a version: {line:?}"),
        })
        .collect()
}

#[test]
fn the_library_defines_the_reviewed_symbols_with_their_versions_and_no_other() {
    let mut expected: Vec<String> =
        reviewed().iter().map(|(name, release)| format!("{name}@@{}", node(release))).collect();
    expected.extend(reviewed().iter().map(|(_, release)| node(release)));
    expected.sort();
    expected.dedup();
    assert_eq!(
        defined(),
        expected,
        "a program linked with one build finds other symbols in the next (left: the library)"
    );
}

/// What ld.so checks before it starts a program, and what rpm makes dependencies of.
#[test]
fn a_program_asks_for_the_version_of_what_it_calls() {
    let needs = about("readelf", &["-VW"], &stage().join("bin/minimal"));
    let of_ours = needs.split("File: libsesscache").nth(1).unwrap_or_else(|| panic!("no version is asked:\n{needs}"));
    let names: Vec<&str> =
        of_ours.lines().skip(1).map_while(|line| line.split_once("Name: ")).map(|(_, name)| name).collect();
    assert_eq!(names.len(), 1, "{needs}");
    assert_eq!(names[0].split_whitespace().next(), Some("SESSCACHE_0.1"), "{needs}");
}

#[test]
fn every_symbol_says_which_version_brought_it() {
    let number = |text: &str| text.split('.').map(|part| part.parse().expect("a version number")).collect::<Vec<u32>>();
    for (name, version) in reviewed() {
        assert_eq!(number(&version).len(), 3, "{name}: {version} is not a version of three numbers");
        assert!(
            number(&version) <= number(env!("CARGO_PKG_VERSION")),
            "{name} comes from {version}, which is yet to be"
        );
    }
}

#[test]
fn the_header_declares_every_symbol() {
    let header = fs::read_to_string(root().join("include/sesscache.h")).expect("include/sesscache.h");
    for (name, _) in reviewed() {
        assert!(header.contains(&format!("{name}(")), "{name} is exported, but a C program finds no declaration of it");
    }
}

#[test]
fn symbols_of_openssl_and_lmdb_stay_out_of_the_hosts_way() {
    let names = defined();
    assert!(!names.is_empty(), "the library exports nothing");
    for name in names {
        let foreign = ["SSL_", "CRYPTO_", "EVP_", "mdb_", "rust_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(!foreign, "{name} of the library would take the place of the host's own");
    }
}

#[test]
fn the_library_uses_the_hosts_openssl() {
    let dynamic = about_library("readelf", &["-d"]);
    for library in ["libssl.so", "libcrypto.so"] {
        let needed = dynamic.lines().any(|line| line.contains("(NEEDED)") && line.contains(library));
        assert!(
            needed,
            "{library} is not needed: a second OpenSSL inside the library cannot take the host's SSL_CTX\n{dynamic}"
        );
    }
    let lmdb = dynamic.lines().any(|line| line.contains("(NEEDED)") && line.contains("liblmdb"));
    assert!(!lmdb, "the machine's LMDB is used, some versions of which destroy live mutexes\n{dynamic}");
}

#[test]
fn what_the_program_needs_stays_out_of_the_library() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--edges", "normal", "--prefix", "none", "--offline"]).current_dir(root());
    let tree = run(&mut command, Duration::from_secs(120), "").expect_success("cargo tree fails").stdout;
    assert!(tree.contains("openssl-sys "), "not a list of dependencies:\n{tree}");
    for of_program in ["clap ", "ratatui ", "serde_json ", "tiny_http "] {
        assert!(!tree.contains(of_program), "whoever builds the library alone builds {of_program}as well\n{tree}");
    }
}

#[test]
fn the_soname_tells_the_abi_and_the_major_of_openssl() {
    let dynamic = about_library("readelf", &["-d"]);
    let mut numbers = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (numbers.next().expect("major"), numbers.next().expect("minor"));
    let mut pkg_config = Command::new("pkg-config");
    let openssl = run(pkg_config.args(["--modversion", "libssl"]), Duration::from_secs(60), "").stdout;
    let suffix = match openssl.split('.').next() {
        Some("3") => String::new(),
        other => format!("-ossl{}", other.expect("pkg-config knows libssl")),
    };
    let soname = format!("[libsesscache{suffix}.so.{major}.{minor}]");
    let has = dynamic.lines().any(|line| line.contains("(SONAME)") && line.contains(&soname));
    assert!(has, "programs would load an incompatible library: the soname is not {soname}\n{dynamic}");
}

#[test]
fn the_library_stays_loaded_while_an_ssl_ctx_points_into_it() {
    let dynamic = about_library("readelf", &["-d"]);
    assert!(dynamic.contains("NODELETE"), "after dlclose OpenSSL would call hooks that are gone\n{dynamic}");
}
