//! Memory: no error and no leak in a server with threads and in one that forks for every connection, from the first
//! handshake to the end of every process; no error either in calls with NULL in every place, nor, with SESSCACHE_LONG=1 as
//! `make sanitize` sets it, in the other C programs.
//!
//! A program of its own: beside other tests valgrind is so slow that clients give up.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{compile_program, resume_client, run, stage, staged, text, Scratch, Server, BOTH};

const CONNECTIONS: u32 = 4;
/// Valgrind makes a program about thirty times as slow.
const PROGRAM: Duration = Duration::from_secs(240);

/// Runs a server under valgrind, has sessions made and resumed, and reads what valgrind found in every process.
fn server_is_clean(program: &str, arguments: &[&str], least_processes: usize) {
    let scratch = Scratch::new("valgrind");
    let logs = scratch.path().join("logs");
    fs::create_dir(&logs).expect("a directory for the logs");

    let server = staged(program);
    let mut valgrind = valgrind(&logs);
    valgrind.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    valgrind.arg(server.get_program());
    let store = scratch.text("store");
    let server = Server::start_command(valgrind, &[&["-s", &store], arguments].concat());
    for tls in BOTH {
        let tally = resume_client(server.port, CONNECTIONS, tls, &[]);
        assert_eq!(tally.resumed, tally.of, "{tls:?}, {program} under valgrind: a client had to start over: {tally:?}");
    }
    // Valgrind's exit status is that of the first process only; the logs tell of all.
    assert_eq!(server.stop(), "", "{program} complains under valgrind");

    all_are_clean(program, &logs, least_processes);
}

/// Valgrind, which writes a log for every process; what it is to run comes behind.
fn valgrind(logs: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--leak-check=full", "--show-leak-kinds=definite,possible", "--errors-for-leak-kinds=definite,possible"])
        .args(["--error-exitcode=99", "--trace-children=yes", "--num-callers=40"])
        // What a debugger would talk to is left in the temporary directory when a process is killed.
        .arg("--vgdb=no")
        .arg(format!("--log-file={}/%p", text(logs)));
    valgrind
}

fn all_are_clean(program: &str, logs: &Path, least_processes: usize) {
    let entries = fs::read_dir(logs).expect("the logs").map(|entry| entry.expect("a log").path());
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

/// Runs one of tests/c under valgrind.
fn program_is_clean(name: &str) {
    let scratch = Scratch::new(&format!("valgrind-{name}"));
    let logs = scratch.path().join("logs");
    fs::create_dir(&logs).expect("a directory for the logs");
    let binary = scratch.path().join(name);
    compile_program(name, &binary);
    let mut command = valgrind(&logs);
    // The programs leave what they allocate to the end of the process; leaks of the library show in the servers.
    command.arg("--leak-check=no").arg(&binary).current_dir(scratch.path());
    command.env("LD_LIBRARY_PATH", stage().join("lib")).env("TMPDIR", scratch.path());
    run(&mut command, PROGRAM, "").expect_success(&format!("tests/c/{name}.c fails under valgrind"));
    all_are_clean(name, &logs, 1);
}

/// Programs that are fast enough for valgrind. Left out are those that measure time, swap stacks, close descriptors
/// of valgrind's, exhaust memory or kill their processes, which then leave an unfinished log.
const PROGRAMS: [&str; 16] = [
    "null_arguments",
    "attach_and_detach",
    "client_auth",
    "decoded_sessions",
    "sessions_of_a_kind",
    "early_data",
    "fork_and_threads",
    "host_state_untouched",
    "ids_of_the_host",
    "lifecycle",
    "opaque_records",
    "renegotiation",
    "server_names",
    "stateless_listener",
    "store_holds_nothing_useless",
    "store_is_not_emptied",
];

#[test]
fn calls_with_null_and_what_other_c_programs_do_touch_no_foreign_memory() {
    let long = std::env::var_os("SESSCACHE_LONG").is_some_and(|value| value == "1");
    for name in PROGRAMS.iter().take(if long { PROGRAMS.len() } else { 1 }) {
        program_is_clean(name);
        println!("ok      valgrind: {name}");
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
