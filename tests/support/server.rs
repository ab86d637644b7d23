//! The example servers: started on a port of the kernel's choice, stopped and looked at when the test is over.

use crate::process::{collect, describe, signal, signal_group, spawn_in_group, wait};
use crate::{kept, lock, patience, run, staged, text, wait_until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a server may take to begin and to end. Generous: valgrind is slow, and so is a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Certificate and key of the test servers, made once by openssl.
pub fn certificate() -> &'static (PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = kept();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let _lock = lock("certificate");
        if !cert.exists() {
            // The certificate gets its final name last: its presence says that both are complete.
            let unfinished = directory.join("cert.pem.new");
            let mut openssl = Command::new("openssl");
            openssl
                .args(
                    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=localhost"
                        .split(' '),
                )
                .args(["-keyout", text(&key), "-out", text(&unfinished)]);
            run(&mut openssl, DEADLINE, "").expect_success("openssl makes no certificate for the test servers");
            fs::rename(&unfinished, &cert).expect("rename the certificate");
        }
        (cert, key)
    })
}

/// A running server. Dropped, it must end on SIGTERM with status 0 and leave no process behind.
pub struct Server {
    name: String,
    child: Child,
    stderr: Option<JoinHandle<String>>,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Starts one of the staged servers with these arguments besides port and certificate.
    pub fn start(program: &str, arguments: &[&str]) -> Server {
        Server::start_command(staged(program), arguments)
    }

    /// The same under another command, as valgrind: `command` ends where the server's own arguments begin.
    pub fn start_command(mut command: Command, arguments: &[&str]) -> Server {
        let (cert, key) = certificate();
        command.args(["-p", "0", "-c", text(cert), "-k", text(key)]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = format!("{command:?}");
        let mut child = spawn_in_group(&mut command);
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
        let mut server = Server { name, child, stderr: Some(stderr), port: 0 };

        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = sender.send(lines.next().and_then(Result::ok).unwrap_or_default());
            // The pipe is read on, so that a server that writes more is not stopped by it.
            lines.for_each(drop);
        });
        let first = receiver.recv_timeout(patience(DEADLINE)).unwrap_or_default();
        match first.strip_prefix("listening on 127.0.0.1:").and_then(|port| port.parse().ok()) {
            Some(port) => server.port = port,
            None => {
                let said = server.kill();
                panic!("{} does not begin to listen; first line: {first:?}; stderr:\n{said}", server.name);
            }
        }
        server
    }

    /// The processes that serve: the children of the one that was started.
    pub fn workers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        children.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
    }

    /// Ends it in order and returns what it wrote to stderr.
    pub fn stop(mut self) -> String {
        self.end_in_order()
    }

    /// Ends it and all its workers with SIGKILL: nobody gets to clean up. Returns what it wrote to stderr.
    pub fn kill(&mut self) -> String {
        signal_group(self.child.id(), libc::SIGKILL);
        let _ = self.child.wait();
        self.stderr.take().map(|reader| reader.join().expect("stderr was read")).unwrap_or_default()
    }

    fn end_in_order(&mut self) -> String {
        let leader = self.child.id();
        signal(leader, libc::SIGTERM);
        let status = wait(&mut self.child, DEADLINE);
        // Killing the group also ends the reading of its stderr, so look first for who is still there.
        let alone = wait_until(Duration::from_secs(2), || !signal_group(leader, 0));
        let said = self.kill();
        let Some(status) = status else { panic!("{} does not end on SIGTERM; stderr:\n{said}", self.name) };
        assert!(status.success(), "{} ends with {} on SIGTERM; stderr:\n{said}", self.name, describe(status));
        assert!(alone, "{} is gone but has left workers running; stderr:\n{said}", self.name);
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stderr.is_none() {
            return; // ended before
        }
        if std::thread::panicking() {
            let said = self.kill();
            eprintln!("--- stderr of {}\n{said}", self.name);
        } else {
            self.end_in_order();
        }
    }
}
