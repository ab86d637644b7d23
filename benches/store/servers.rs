//! Peers that are servers: Redis and memcached on a private Unix socket, started here and stopped here.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::subject::{copy, Id, Subject, LIFE};
use crate::support::measure::Random;
use crate::support::processes;

const PATIENCE: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Memcached,
}

/// A server with one connection to it.
pub struct Server {
    kind: Kind,
    child: Child,
    connection: BufReader<UnixStream>,
    request: Vec<u8>,
    reply: Vec<u8>,
    out: Vec<u8>,
    random: Random,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Redis => "Redis",
            Kind::Memcached => "memcached",
        }
    }

    fn command(self, socket: &Path) -> Command {
        match self {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(socket);
                command
            }
            Kind::Memcached => {
                let mut command = Command::new("memcached");
                // Asked of by root only, who may not run it otherwise: it stays the user who runs the benchmark.
                command.args(["-u", "root", "-t", "1", "-m", "1024", "-s"]).arg(socket);
                command
            }
        }
    }
}

impl Server {
    pub fn start(kind: Kind, directory: &Path) -> Server {
        let socket = directory.join("socket");
        let mut command = kind.command(&socket);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                processes::die_with_parent();
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{} does not start: {e}", kind.name()));
        let begin = Instant::now();
        let connection = loop {
            match UnixStream::connect(&socket) {
                Ok(connection) => break connection,
                Err(error) if begin.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    panic!("{} does not listen: {error}", kind.name());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        connection.set_read_timeout(Some(PATIENCE)).expect("a deadline for replies");
        Server {
            kind,
            child,
            connection: BufReader::new(connection),
            request: Vec::new(),
            reply: Vec::new(),
            out: Vec::new(),
            random: Random(11),
        }
    }

    pub fn pid(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    fn send(&mut self) {
        self.connection.get_mut().write_all(&self.request).expect("a request goes out");
        self.request.clear();
    }

    fn line(&mut self) -> &[u8] {
        self.reply.clear();
        self.connection.read_until(b'\n', &mut self.reply).expect("a reply comes");
        self.reply.strip_suffix(b"\r\n").expect("a whole line")
    }

    fn ask_put(&mut self, id: &Id, value: &[u8]) {
        let request = &mut self.request;
        match self.kind {
            Kind::Redis => {
                let life = LIFE.to_string();
                begin_redis(request, &[b"SETEX", id, life.as_bytes(), value]);
            }
            Kind::Memcached => {
                request.extend_from_slice(b"set ");
                hex(request, id);
                request.extend_from_slice(format!(" 0 {LIFE} {}\r\n", value.len()).as_bytes());
                request.extend_from_slice(value);
                request.extend_from_slice(b"\r\n");
            }
        }
    }

    fn expect_stored(&mut self) {
        let wanted: &[u8] = if self.kind == Kind::Redis { b"+OK" } else { b"STORED" };
        let (line, name) = (self.line().to_vec(), self.kind.name());
        assert_eq!(line, wanted, "{name} stores it, and does not say {:?}", String::from_utf8_lossy(&line));
    }

    /// The value that follows a line like `$140` or `VALUE key 0 140`.
    fn value(&mut self, len: usize) -> usize {
        self.reply.resize(len + 2, 0);
        self.connection.read_exact(&mut self.reply).expect("a whole value");
        copy(&mut self.out, &self.reply[..len])
    }
}

impl Subject for Server {
    fn fresh(&mut self) -> Id {
        let mut id = [0; 32];
        self.random.fill(&mut id);
        id
    }

    fn put(&mut self, id: &Id, value: &[u8]) {
        self.ask_put(id, value);
        self.send();
        self.expect_stored();
    }

    fn get(&mut self, id: &Id) -> Option<usize> {
        match self.kind {
            Kind::Redis => {
                begin_redis(&mut self.request, &[b"GET", id]);
                self.send();
                let len = number(self.line().strip_prefix(b"$").expect("a string"));
                (len >= 0).then(|| self.value(len as usize))
            }
            Kind::Memcached => {
                self.request.extend_from_slice(b"get ");
                hex(&mut self.request, id);
                self.request.extend_from_slice(b"\r\n");
                self.send();
                let line = self.line();
                if line == b"END" {
                    return None;
                }
                let len = number(line.rsplit(|byte| *byte == b' ').next().expect("a length"));
                let found = self.value(len as usize);
                assert_eq!(self.line(), b"END");
                Some(found)
            }
        }
    }

    fn fill(&mut self, ids: &[Id], value: &[u8]) {
        ids.iter().for_each(|id| self.ask_put(id, value));
        self.send();
        ids.iter().for_each(|_| self.expect_stored());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn begin_redis(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// memcached's keys hold no control characters.
fn hex(out: &mut Vec<u8>, id: &Id) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in id {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).expect("a number")
}
