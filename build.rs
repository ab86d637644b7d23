//! Link flags of the shared library, and the OpenSSL it is built for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The reviewed list of what the library exports.
const SYMBOLS: &str = "include/sesscache.symbols";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A host may dlclose while SSL_CTXs and threads still point into the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Without it nothing is exported.
    if env::var_os("CARGO_FEATURE_CAPI").is_some() {
        version_the_symbols();
    }
    // openssl-sys says which libssl it found, as the hexadecimal OPENSSL_VERSION_NUMBER; the top digit is the major. Of
    // LibreSSL and the like it says something else.
    let version = env::var("DEP_OPENSSL_VERSION_NUMBER").unwrap_or_default();
    let number = u64::from_str_radix(&version, 16).unwrap_or_default();
    let (major, minor, patch) = (number >> 28, number >> 20 & 0xff, number >> 12 & 0xff);
    if major < 3 {
        let found = if major == 0 { "another libssl".into() } else { format!("OpenSSL {major}.{minor}.{patch}") };
        println!("cargo::error=sesscache needs OpenSSL 3.0 or later with its headers, and the build finds {found}.");
    }
    println!("cargo:rustc-env=SESSCACHE_OPENSSL_MAJOR={major}");
    // A program has the libssl that it was linked with, and needs the library for that one: docs/packaging.md.
    let suffix = if major > 3 { format!("-ossl{major}") } else { String::new() };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsesscache{suffix}.so.0.1");
}

/// Gives each symbol the version node of the release that brought it: SESSCACHE_0.1 for 0.1.0, SESSCACHE_0.1.2 for 0.1.2.
///
/// rustc passes a list of symbols without versions to the linker. GNU ld refuses a second list beside it, and LLD takes the
/// first. So the C compiler, which rustc links with, finds a linker of ours, which passes our list on in place of rustc's.
fn version_the_symbols() {
    println!("cargo:rerun-if-changed={SYMBOLS}");
    let symbols = fs::read_to_string(SYMBOLS).expect(SYMBOLS);
    let directory = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let (nodes, linker) = (format!("{directory}/nodes"), format!("{directory}/ld.bfd"));
    fs::write(&nodes, version_script(&symbols)).expect(&nodes);

    let compiler = env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into());
    let found = Command::new(&compiler).arg("-print-prog-name=ld.bfd").output();
    let found = found.unwrap_or_else(|error| panic!("{compiler}, which links: {error}")).stdout;
    let script = include_str!("scripts/ld").replace("@NODES@", &nodes);
    let script = script.replace("@LD@", String::from_utf8_lossy(&found).trim());
    fs::write(&linker, script).expect(&linker);
    fs::set_permissions(Path::new(&linker), PermissionsExt::from_mode(0o755)).expect(&linker);
    // rustc has LLD in a directory that it names first: another name makes the compiler look further.
    println!("cargo:rustc-cdylib-link-arg=-fuse-ld=bfd");
    println!("cargo:rustc-cdylib-link-arg=-B{directory}");
}

/// GNU ld's version script: a node for each release, each after the one before.
fn version_script(symbols: &str) -> String {
    let mut releases: BTreeMap<Vec<u32>, Vec<&str>> = BTreeMap::new();
    for line in symbols.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, release) = line.split_once(' ').expect("a symbol and the release that brought it");
        let release = release.split('.').map(|number| number.parse().expect("a number")).collect();
        releases.entry(release).or_default().push(name);
    }
    let (mut script, mut before) = (String::new(), String::new());
    for (release, names) in releases {
        let node = match release[..] {
            [major, minor, 0] => format!("SESSCACHE_{major}.{minor}"),
            [major, minor, patch] => format!("SESSCACHE_{major}.{minor}.{patch}"),
            _ => panic!("{SYMBOLS}: not a version of three numbers: {release:?}"),
        };
        let rest = if before.is_empty() { "local: *; " } else { "" };
        writeln!(script, "{node} {{ global: {}; {rest}}}{before};", names.join("; ")).expect("a String takes it");
        before = format!(" {node}");
    }
    script
}
