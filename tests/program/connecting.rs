//! The example of a client, in several processes, and what the program says of its sessions.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::program::{json_lines, sesscache, DEADLINE};
use support::{certificate, run, spawn_in_group, staged, text, Scratch};

/// `openssl s_server`, which gives tickets that hold the session; killed when it is dropped.
struct Stock {
    child: Child,
    port: String,
}

impl Stock {
    fn start(arguments: &[&str]) -> Stock {
        let (cert, key) = certificate();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", text(cert), "-key", text(key)]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = spawn_in_group(&mut command);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned));
        Stock { child, port: port.expect("s_server says where it listens") }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Visits of four processes, and how many of them resumed.
fn visits(store: &str, options: &str, peer: &str, visits: u64) -> (u64, u64) {
    let mut command = staged("get_client");
    let (cert, _) = certificate();
    command.args(["-s", store, "-o", options, "-a", text(cert), "-w", "4", "-n", &visits.to_string(), peer]);
    let done = run(&mut command, DEADLINE, "").expect_success("the client fails");
    let numbers: Vec<u64> = done.stdout.split([' ', ':']).filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [_, visits, resumed] => (visits, resumed),
        _ => panic!("the client says nothing of its visits\n{done}"),
    }
}

#[test]
fn processes_that_connect_share_their_sessions_and_a_second_run_resumes_all() {
    for version in ["-tls1_2", "-tls1_3"] {
        let scratch = Scratch::new("connecting");
        let store = scratch.text("store");
        let server = Stock::start(&[version]);
        let peer = format!("localhost:{}", server.port);
        // A process that finds the lock held for longer than this goes on without storing.
        let options = "disk=on deadline=10s";
        let (made, resumed) = visits(&store, options, &peer, 25);
        assert!(made == 100 && resumed >= 96, "{version}: {resumed} of {made} visits resume");
        assert_eq!(visits(&store, options, &peer, 25), (100, 100), "{version}: after the first run, and resumed");
        let listed = json_lines(&["--json", "list", &store, "--clients"]);
        let [row] = &listed[..] else { panic!("one server, one kind of client: {listed:?}") };
        assert_eq!(row["peer"], peer.as_str());
        assert_eq!(row["differ_in"], serde_json::json!([]));
        assert_eq!(row["protocols"][0], if version == "-tls1_2" { "TLS 1.2" } else { "TLS 1.3" });
        sesscache(&["check", &store]).expect_success("the sessions of clients are called damaged");
    }
}

#[test]
fn what_differs_between_the_clients_of_one_server_is_said() {
    let scratch = Scratch::new("connecting");
    let store = scratch.text("store");
    let server = Stock::start(&[]);
    let peer = format!("localhost:{}", server.port);
    for policy in ["policy=one", "policy=two"] {
        visits(&store, &format!("disk=on {policy}"), &peer, 1);
    }
    let done = sesscache(&["list", &store, "--clients"]).expect_success("no list");
    let rows: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with(&peer)).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.ends_with("  policy")), "{done}");
    let list = json_lines(&["--json", "list", &store]);
    assert!(!list.is_empty() && list.iter().all(|row| row["kind"] == "client"), "{list:?}");
}
