//! Compiles C programs against the staged library, as a user would: with pkg-config.

use crate::process::Finished;
use crate::{root, run, stage, Scratch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// What to compile, and how.
pub struct Compile<'a> {
    pub sources: &'a [&'a Path],
    /// Besides the flags of pkg-config.
    pub flags: &'a [&'a str],
    pub libraries: &'a [&'a str],
    pub output: &'a Path,
}

/// The flags that pkg-config gives for the staged library.
fn pkg_config(which: &str) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args([which, "sesscache"]).env("PKG_CONFIG_PATH", stage().join("lib/pkgconfig"));
    let done = run(&mut command, DEADLINE, "").expect_success("pkg-config does not find the staged library");
    done.stdout.split_whitespace().map(str::to_owned).collect()
}

/// Whether the OpenSSL here has QUIC servers.
pub fn has_quic_servers() -> bool {
    let asked = Command::new("pkg-config").args(["--atleast-version=3.5", "libssl"]).status();
    asked.expect("pkg-config").success()
}

/// Compiles and links; returns what the compiler said.
pub fn compile_check(what: &Compile) -> Finished {
    let mut cc = Command::new("cc");
    cc.args(what.flags)
        .args(pkg_config("--cflags"))
        .args(what.sources)
        .arg("-o")
        .arg(what.output)
        .args(pkg_config("--libs"));
    cc.args(what.libraries);
    run(&mut cc, DEADLINE, "")
}

/// Compiles a program as strictly as it gets and panics with the compiler's words when that fails.
pub fn compile(sources: &[&Path], output: &Path) {
    let flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1"];
    compile_check(&Compile { sources, flags: &flags, libraries: &["-lpthread", "-ldl"], output })
        .expect_success("a C program of the tests does not compile");
}

/// The sources of one of tests/c: its own, and what all of them share.
pub fn program_sources(name: &str) -> Vec<PathBuf> {
    let parts = [name, "connecting", "credentials", "habits", "saved", "tls", "workers"];
    parts.iter().map(|part| root().join("tests/c").join(format!("{part}.c"))).collect()
}

/// Compiles one of tests/c.
pub fn compile_program(name: &str, output: &Path) {
    let sources = program_sources(name);
    compile(&sources.iter().map(PathBuf::as_path).collect::<Vec<_>>(), output);
}

/// Compiles a library of tests/support that is preloaded into processes, into the scratch directory.
pub fn preload(scratch: &Scratch, name: &str) -> PathBuf {
    let library = scratch.join(&format!("{name}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-fPIC", "-shared", "-o"]);
    let status = cc.arg(&library).arg(root().join(format!("tests/support/{name}.c"))).arg("-ldl").status();
    assert!(status.is_ok_and(|status| status.success()), "`{cc:?}` fails; a C compiler is needed");
    library
}
