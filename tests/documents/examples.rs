//! The examples are what people copy: short, free of warnings, and built with nothing but pkg-config.

use std::fs;
use std::path::PathBuf;
use support::{compile_check, has_quic_servers, root, Compile, Scratch};

const EXAMPLES: [&str; 8] = [
    "event_server.c",
    "fork_server.c",
    "get_client.c",
    "minimal.c",
    "prefork_server.c",
    "quic_server.c",
    "resume_client.c",
    "threaded_server.c",
];

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("c-examples")).expect("c-examples");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "c"));
    paths.sort();
    paths
}

#[test]
fn every_example_is_there() {
    let paths = examples();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().expect("a name").to_string_lossy()).collect();
    assert_eq!(names, EXAMPLES, "c-examples does not hold what the documentation lists");
}

#[test]
fn every_example_is_short_and_begins_with_how_to_build_it() {
    for path in examples() {
        let source = fs::read_to_string(&path).expect("an example");
        let lines = source.lines().count();
        assert!(lines < 200, "{}: {lines} lines are too many to read before copying", path.display());
        let head: Vec<&str> = source.lines().take(3).collect();
        assert!(
            head[0].starts_with("/* ") && head.concat().contains("Build:") && head.concat().contains("Expect:"),
            "{} does not begin with what it shows, how to build it and what to expect",
            path.display()
        );
    }
}

fn output(scratch: &Scratch) -> PathBuf {
    scratch.join("example")
}

#[test]
fn every_example_compiles_with_nothing_but_pkg_config() {
    let scratch = Scratch::new("examples");
    for path in examples() {
        if path.ends_with("quic_server.c") && !has_quic_servers() {
            let done =
                compile_check(&Compile { sources: &[&path], flags: &[], libraries: &[], output: &output(&scratch) });
            let says = "QUIC servers need OpenSSL 3.5 or later";
            assert!(!done.status.success() && done.stderr.contains(says), "the example does not say: {says}\n{done}");
            continue;
        }
        for flags in
            [&[][..], &["-std=c11"], &["-Wall", "-Wextra", "-Wpedantic"], &["-std=c2x", "-Wall", "-Wextra", "-O2"]]
        {
            let done = compile_check(&Compile { sources: &[&path], flags, libraries: &[], output: &output(&scratch) })
                .expect_success("an example does not compile with the command that it recommends");
            assert_eq!(done.stderr, "", "{}: the compiler warns about code that people copy", path.display());
        }
    }
}
