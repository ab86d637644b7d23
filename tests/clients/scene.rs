//! The servers that a client comes back to.

use crate::kit::{self, Kit};
use crate::roster::{Client, ServedBy};
use crate::visit::{Errand, Visit};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;
use support::{collect, spawn_in_group, staged, Scratch, Server, Tls};

/// First visit and seven returns.
pub const VISITS: usize = 8;

/// Past the deadline of 5 ms that is the default a session is rather not stored than waited for: on a busy machine that
/// would tell of the machine and not of the client.
const PATIENT: [&str; 2] = ["-o", "deadline=10s"];

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// A process per connection, sessions shared.
    Shared,
    /// Four worker processes, sessions shared.
    Prefork,
    /// A process per connection, nothing shared: the counterpart, which shows that the others can fail.
    Alone,
    /// One process of `openssl s_server` as it comes: with tickets that hold the session.
    Tickets,
    /// One process of `openssl s_server -no_ticket`: session ids, and in TLS 1.3 tickets that are ids.
    Ids,
    /// As Shared, without a session id context.
    NoContext,
    /// As Shared, with a client certificate demanded.
    Certificate,
    /// Both: OpenSSL stores no session then.
    CertificateNoContext,
    /// As Shared, with the request as early data.
    Early,
}

/// How many sessions were resumed of those that could be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub resumed: usize,
    pub of: usize,
}

impl Scene {
    pub const ALL: [Scene; 9] = [
        Scene::Shared,
        Scene::Prefork,
        Scene::Alone,
        Scene::Tickets,
        Scene::Ids,
        Scene::NoContext,
        Scene::Certificate,
        Scene::CertificateNoContext,
        Scene::Early,
    ];

    /// Starts the server, lets the client visit it, and counts.
    pub fn play(self, client: &Client, tls: Tls, kit: &Kit) -> Share {
        let demanded = matches!(self, Scene::Certificate | Scene::CertificateNoContext);
        let mut errand = Errand {
            port: 0,
            tls,
            visits: VISITS,
            certificate: demanded.then_some((&*kit.client.cert, &*kit.client.key)),
            early: self == Scene::Early,
            tries: if tls == Tls::V12 && client.ought_to_resume(self, tls) { 20 } else { 1 },
        };
        let visits = if let Scene::Tickets | Scene::Ids = self {
            let server = SServer::start(kit, if self == Scene::Ids { &["-no_ticket"] } else { &[] });
            errand.port = server.port;
            (client.visit)(kit, &errand)
        } else {
            let scratch = Scratch::new("client");
            let server = self.start(client, kit, &scratch.text("store"));
            errand.port = server.port;
            let visits = (client.visit)(kit, &errand);
            assert_eq!(server.stop(), "", "{}, {tls:?}, {self:?}: the server complains", client.name);
            visits
        };
        self.count(&visits, client, tls)
    }

    fn start(self, client: &Client, kit: &Kit, store: &str) -> Server {
        let pair = ["-c", &kit.server.cert, "-k", &kit.server.key];
        let shared = ["-s", store, PATIENT[0], PATIENT[1]];
        let own: &[&str] = match self {
            Scene::NoContext => &["-n"],
            Scene::Certificate => &["-a", &kit.ca],
            Scene::CertificateNoContext => &["-a", &kit.ca, "-n"],
            Scene::Early => &["-e", "16384"],
            _ => &[],
        };
        let sharing: &[&str] = if self == Scene::Alone { &[] } else { &shared };
        let arguments = [&pair[..], sharing, own].concat();
        match (self, client.served_by) {
            (Scene::Shared | Scene::Alone, ServedBy::Examples) => Server::start("fork_server", &arguments),
            (Scene::Prefork, _) => Server::start("prefork_server", &arguments),
            _ => Server::start_command(staged(kit::server()), &arguments),
        }
    }

    /// The first visit has nothing to resume. GnuTLS reports only on those that have.
    fn count(self, visits: &[Visit], client: &Client, tls: Tls) -> Share {
        let told = format!("{}, {tls:?}, {self:?}: {visits:?}", client.name);
        let returns = if client.tells_first { &visits[1..] } else { visits };
        assert!(!client.tells_first || !visits[0].resumed, "resumed without a session: {told}");
        if !matches!(self, Scene::Prefork | Scene::Tickets | Scene::Ids) {
            // What was resumed was made by another process.
            let mut workers: Vec<&str> = visits.iter().map(|visit| &*visit.worker).filter(|w| !w.is_empty()).collect();
            let all = workers.len();
            workers.sort_unstable();
            workers.dedup();
            assert!(all > 0 && workers.len() == all, "the server does not use a process per connection: {told}");
        }
        let counts = |visit: &&Visit| visit.resumed && (self != Scene::Early || visit.early);
        Share { resumed: returns.iter().filter(counts).count(), of: returns.len() }
    }
}

/// `openssl s_server`, killed when it is dropped.
struct SServer {
    child: Child,
    port: u16,
}

impl SServer {
    fn start(kit: &Kit, arguments: &[&str]) -> SServer {
        let mut command = Command::new("openssl");
        command.args([
            "s_server",
            "-www",
            "-accept",
            "127.0.0.1:0",
            "-cert",
            &kit.server.cert,
            "-key",
            &kit.server.key,
        ]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_in_group(&mut command);
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix("ACCEPT 127.0.0.1:").and_then(|port| port.parse().ok()) {
                    let _ = sender.send(port);
                }
            }
        });
        let mut server = SServer { child, port: 0 };
        match receiver.recv_timeout(support::patience(Duration::from_secs(30))) {
            Ok(port) => server.port = port,
            Err(_) => {
                drop(server);
                panic!("openssl s_server does not begin to listen:\n{}", stderr.join().unwrap_or_default());
            }
        }
        server
    }
}

impl Drop for SServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
