//! Memory: no error and no leak in a server with threads and in one that forks for every connection, from the first
//! handshake to the end of every process.

mod support;

use std::fs;
use std::process::Command;
use support::{resume_client, staged, text, Scratch, Server, BOTH};

const CONNECTIONS: u32 = 4;

/// Runs a server under valgrind, has sessions made and resumed, and reads what valgrind found in every process.
fn server_is_clean(program: &str, arguments: &[&str], least_processes: usize) {
    let scratch = Scratch::new("valgrind");
    let logs = scratch.path().join("logs");
    fs::create_dir(&logs).expect("a directory for the logs");

    let server = staged(program);
    let mut valgrind = Command::new("valgrind");
    valgrind.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    valgrind
        .args(["--leak-check=full", "--show-leak-kinds=definite,possible", "--errors-for-leak-kinds=definite,possible"])
        .args(["--error-exitcode=99", "--trace-children=yes", "--num-callers=40"])
        .arg(format!("--log-file={}/%p", text(&logs)))
        .arg(server.get_program());
    let store = scratch.join("store");
    let server = Server::start_command(valgrind, &[&["-s", &store], arguments].concat());
    for tls in BOTH {
        let tally = resume_client(server.port, CONNECTIONS, tls, &[]);
        assert_eq!(tally.resumed, tally.of, "{tls:?}, {program} under valgrind: a client had to start over: {tally:?}");
    }
    // Valgrind's exit status is that of the first process only; the logs tell of all.
    assert_eq!(server.stop(), "", "{program} complains under valgrind");

    let entries = fs::read_dir(&logs).expect("the logs").map(|entry| entry.expect("a log").path());
    let reports: Vec<String> = entries.map(|path| fs::read_to_string(path).expect("a log")).collect();
    assert!(
        reports.len() >= least_processes,
        "{program}: valgrind saw {} processes, not {least_processes}",
        reports.len()
    );
    for report in reports {
        assert!(
            report.contains("ERROR SUMMARY: 0 errors"),
            "{program} reads or leaks memory that it should not:\n{report}"
        );
    }
}

#[test]
fn threads_neither_leak_nor_touch_foreign_memory() {
    server_is_clean("threaded_server", &["-w", "2"], 1);
}

#[test]
fn forked_children_neither_leak_nor_touch_foreign_memory() {
    server_is_clean("fork_server", &[], 1 + 2 * CONNECTIONS as usize);
}
