//! The C programs of tests/c: what a server written in C meets. Each is compiled as a user would, and run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{compile_program, root, run, stage, Scratch};

/// The programs take less than a second each in the main; all of them have deadlines of their own inside.
const DEADLINE: Duration = Duration::from_secs(240);

fn passes(name: &str) {
    let scratch = Scratch::new(name);
    let binary = scratch.path().join(name);
    compile_program(name, &binary);
    let mut command = Command::new(&binary);
    command.current_dir(scratch.path()).env("LD_LIBRARY_PATH", stage().join("lib")).env("TMPDIR", scratch.path());
    let complaint = format!("tests/c/{name}.c fails; once more with gdb or strace: build it as `cc` was called here");
    let done = run(&mut command, DEADLINE, "").expect_success(&complaint);
    for why in done.stdout.lines().filter_map(|line| line.strip_prefix("not tried: ")) {
        support::not_tried(name, why);
    }
}

macro_rules! c_programs {
    ($($name:ident)*) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { passes(stringify!($name)); })*
    };
}

c_programs! {
    alone_beside_attached
    attach_and_detach
    attackers
    client_auth
    client_chains
    client_sessions
    client_tickets
    decoded_sessions
    early_data
    early_data_replayed
    early_data_unprotected
    fork_and_threads
    handed_sessions
    handshakes_counted
    held_store
    host_closes_descriptors
    host_leaves_in_the_middle
    host_state_untouched
    ids_of_the_host
    internal_cache
    isolation
    lifecycle
    many_contexts
    narrow_stacks
    no_memory_for_the_store
    no_memory_left
    null_arguments
    one_ticket_at_once
    opaque_records
    openssl_conf
    openssl_conf_threads
    other_libssl
    other_local_user
    own_library_context
    policy_changes
    quic
    renegotiation
    revocation
    same_as_openssl
    server_names
    sessions_in_memory
    sessions_of_a_kind
    settings_matrix
    ssl_objects
    stateless_listener
    store_away
    store_holds_nothing_useless
    store_is_not_emptied
    tickets_of_the_host
    tls13_chain_ends
}

#[test]
fn every_program_has_a_test() {
    let is_program = |path: &Path| {
        path.extension().is_some_and(|e| e == "c")
            && fs::read_to_string(path).expect("a C source").contains("\nint main(")
    };
    let entries = fs::read_dir(root().join("tests/c")).expect("tests/c").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<String> = entries
        .filter(|path| is_program(path))
        .map(|path| path.file_stem().expect("a file name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, PROGRAMS, "tests/c and the list in tests/tls/c_programs.rs differ: a program would never run");
}
