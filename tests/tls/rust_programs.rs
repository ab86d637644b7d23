//! Programs in Rust that use the library as any crate: the example `prefork`, and the same with an allocator of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{run, text, Scratch};

/// A cold build compiles OpenSSL's bindings, LMDB and an allocator.
const BUILD: Duration = Duration::from_secs(600);
const RUN: Duration = Duration::from_secs(60);

/// Builds the package `tests/allocator`, which has the example in it, outside of this one.
fn with_own_allocator() -> PathBuf {
    let _lock = support::lock("allocator");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("allocator");
    let manifest = support::root().join("tests/allocator/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path", text(&manifest), "--target-dir", text(&target)]);
    run(&mut cargo, BUILD, "").expect_success("a program with an allocator of its own does not build");
    target.join("debug/allocator")
}

/// The example as cargo builds it for this very run of tests, from what is compiled already.
fn example() -> Command {
    let features = [("capi", cfg!(feature = "capi")), ("cli", cfg!(feature = "cli")), ("openssl", true)];
    let features: Vec<&str> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(support::root()).args(["run", "--quiet", "--offline", "--example", "prefork", "--features"]);
    cargo.args([&features.join(","), "--"]);
    cargo
}

/// Four processes that serve one connection each: the client never meets the process that made its session.
fn assert_resumes_in_every_process(mut program: Command, deadline: Duration) {
    let scratch = Scratch::new("prefork");
    let done = run(program.args([&*scratch.text("store"), "4", "1"]), deadline, "");
    let done = done.expect_success("the server or its client fails");
    let lines: Vec<(&str, &str)> = done.stdout.lines().filter_map(|line| line.split_once(": ")).collect();
    let outcomes: Vec<&str> = lines.iter().map(|(_, outcome)| *outcome).collect();
    assert_eq!(outcomes, ["full handshake", "resumed", "resumed", "resumed"], "{}", done.stdout);
    let processes: BTreeSet<&str> = lines.iter().map(|(process, _)| *process).collect();
    assert_eq!(processes.len(), 4, "a process took two connections: {}", done.stdout);
}

#[test]
fn a_session_of_the_example_resumes_in_every_process() {
    assert_resumes_in_every_process(example(), BUILD);
}

#[test]
fn a_program_keeps_its_own_allocator() {
    assert_resumes_in_every_process(Command::new(with_own_allocator()), RUN);
}
