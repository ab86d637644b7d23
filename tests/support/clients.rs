//! The example client, which comes back and tells whether it was resumed.

use crate::{run, spawn_in_group, staged};
use std::process::{Child, Stdio};
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
