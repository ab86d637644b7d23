//! TLS clients that come back: our own, OpenSSL's, GnuTLS's and Python's. Each tells whether it was resumed.

use super::{root, run, spawn_in_group, staged};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    V12,
    V13,
}

/// Both, for what has to hold for both.
pub const BOTH: [Tls; 2] = [Tls::V12, Tls::V13];

/// What came of some connections: `resumed` of the `of` that could be, `elsewhere` by a worker other than the one that
/// had made the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub resumed: u32,
    pub of: u32,
    pub elsewhere: u32,
}

/// One connection: who answered, and whether the session offered was taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub worker: String,
    pub resumed: bool,
}

impl Visit {
    /// Reads the line that the servers greet with, `worker NAME resumed 0|1`.
    fn parse(line: &str) -> Option<Visit> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["worker", worker, "resumed", resumed] => {
                Some(Visit { worker: worker.to_owned(), resumed: resumed == "1" })
            }
            _ => None,
        }
    }
}

/// The example client, `connections` times in a row.
pub fn resume_client(port: u16, connections: u32, tls: Tls, arguments: &[&str]) -> Tally {
    let mut command = staged("resume_client");
    command.args(["-p", &port.to_string(), "-n", &connections.to_string(), if tls == Tls::V12 { "-2" } else { "-3" }]);
    command.args(arguments);
    let done = run(&mut command, DEADLINE, "").expect_success("a client cannot connect, or is cut off");
    let last = done.stdout.lines().last().unwrap_or_default();
    let numbers: Vec<u32> = last.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [resumed, of, elsewhere] if last.starts_with("resumed ") => Tally { resumed, of, elsewhere },
        _ => panic!("resume_client does not end with its sum\n{done}"),
    }
}

/// Three clients at the same time, each `connections` times: more than one worker has to take part.
pub fn measure(port: u16, connections: u32, tls: Tls) -> Tally {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(move || resume_client(port, connections, tls, &[]))).collect();
        let mut sum = Tally::default();
        for client in clients {
            let one = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.resumed += one.resumed;
            sum.of += one.of;
            sum.elsewhere += one.elsewhere;
        }
        sum
    })
}

/// Clients that keep a server busy until the value is dropped, and whatever comes of it.
pub struct Traffic(Vec<Child>);

impl Traffic {
    /// Three of them.
    pub fn start(port: u16, tls: Tls) -> Traffic {
        let client = || {
            let mut command = staged("resume_client");
            command.args(["-q", "-n", "1000000", if tls == Tls::V12 { "-2" } else { "-3" }, "-p", &port.to_string()]);
            spawn_in_group(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        Traffic((0..3).map(|_| client()).collect())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &mut self.0 {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// The stock `openssl s_client`: a first visit, then `returns` more, each with the session saved by the one before.
/// The line it sends makes the server say goodbye, and waiting for that lets the tickets of TLS 1.3 arrive.
pub fn s_client(port: u16, tls: Tls, session: &str, returns: u32) -> Vec<Visit> {
    let visit = |offer: bool| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &format!("127.0.0.1:{port}"), "-sess_out", session]);
        command.arg(if tls == Tls::V12 { "-tls1_2" } else { "-tls1_3" });
        if offer {
            command.args(["-sess_in", session]);
        }
        let done = run(&mut command, DEADLINE, "bye\n").expect_success("openssl s_client cannot connect");
        let Some(visit) = done.stdout.lines().find_map(Visit::parse) else {
            panic!("openssl s_client does not get the server's line\n{done}");
        };
        let reused = done.stdout.lines().any(|line| line.starts_with("Reused, TLS"));
        assert_eq!(
            reused, visit.resumed,
            "server and openssl s_client disagree on whether the session resumed\n{done}"
        );
        visit
    };
    visit(false);
    (0..returns).map(|_| visit(true)).collect()
}

/// GnuTLS: connects, saves the session, connects again with it; `offers` times. Tells which of them resumed.
///
/// gnutls-cli waits 60 ms for a ticket of TLS 1.3. When the machine is too busy for that, it comes back without one,
/// which says nothing about the server, and is tried again.
pub fn gnutls(port: u16, tls: Tls, offers: usize) -> Vec<bool> {
    let version = if tls == Tls::V12 { "NORMAL:-VERS-ALL:+VERS-TLS1.2" } else { "NORMAL:-VERS-ALL:+VERS-TLS1.3" };
    let mut resumed = Vec::new();
    for _try in 0..10 * offers {
        let mut command = Command::new("gnutls-cli");
        command.args([
            "-d",
            "4",
            "--resume",
            "--insecure",
            "--priority",
            version,
            "-p",
            &port.to_string(),
            "127.0.0.1",
        ]);
        // At the end of its input it says goodbye and waits for the server to do so, too.
        let done = run(&mut command, DEADLINE, "").expect_success("gnutls-cli cannot connect twice");
        assert!(done.stdout.contains("Connecting again"), "gnutls-cli does not come back\n{done}");
        if tls == Tls::V12 || done.stderr.contains("sent PSK resumption identity") {
            resumed.push(done.stdout.contains("This is a resumed session"));
        }
        if resumed.len() == offers {
            return resumed;
        }
    }
    panic!("{tls:?}: gnutls-cli got a ticket in {} of {} connections only", resumed.len(), 10 * offers);
}

/// Python's ssl module: a first visit, then `returns` more.
pub fn python_visits(port: u16, tls: Tls, returns: u32) -> Vec<Visit> {
    let version = if tls == Tls::V12 { "TLSv1_2" } else { "TLSv1_3" };
    let mut command = Command::new("python3");
    command.arg(root().join("tests/support/resume.py")).args([&port.to_string(), version, &returns.to_string()]);
    let done = run(&mut command, DEADLINE, "").expect_success("a Python client cannot connect, or is cut off");
    let visits: Vec<Visit> = done.stdout.lines().filter_map(Visit::parse).collect();
    assert_eq!(visits.len() as u32, returns + 1, "the Python client does not report every visit\n{done}");
    visits[1..].to_vec()
}
