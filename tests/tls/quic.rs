//! The QUIC server among the examples, visited by the stock `openssl s_client`. tests/c/quic.c has the rest of what holds for QUIC.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;
use support::{has_quic_servers, not_tried, run, Scratch, Server};

const DEADLINE: Duration = Duration::from_secs(60);

/// One visit; the worker that answered, and whether client and server call it a resumption.
fn visit(port: u16, arguments: &[&str]) -> (String, bool) {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quic", "-alpn", "examples", "-ign_eof", "-connect", &format!("127.0.0.1:{port}")]);
    let done = run(client.args(arguments), DEADLINE, "hello\n").expect_success("openssl s_client cannot connect");
    let line = done.stdout.lines().find_map(|line| line.strip_prefix("worker ")).unwrap_or_default();
    let (worker, resumed) =
        line.split_once(" resumed ").unwrap_or_else(|| panic!("the server does not answer\n{done}"));
    let resumed = resumed == "1";
    assert_eq!(done.stdout.contains("\nReused, "), resumed, "client and server disagree\n{done}");
    (worker.to_owned(), resumed)
}

#[test]
fn quic_workers_of_one_port_share_their_sessions() {
    if !has_quic_servers() {
        return not_tried("quic", "OpenSSL has QUIC servers from 3.5 on");
    }
    let scratch = Scratch::new("quic");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    let server = Server::start("quic_server", &["-s", &store]);
    let (maker, resumed) = visit(server.port, &["-sess_out", &session]);
    assert!(!resumed, "a client without a session is resumed");
    let mut workers = BTreeSet::from([maker]);
    // Which worker answers follows from the client's port: the kernel's choice, of four.
    for visits in 1.. {
        let (worker, resumed) = visit(server.port, &["-sess_in", &session]);
        assert!(resumed, "return {visits} is a full handshake");
        workers.insert(worker);
        if visits > 2 && workers.len() > 1 {
            break;
        }
        assert!(visits < 50, "no other worker ever answers");
    }
    assert_eq!(server.stop(), "", "the server complains while it shares its sessions");
}
