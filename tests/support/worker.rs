//! Worker processes for the tests of the store: the test program itself, started again in a role.
//!
//! A worker takes one command per line on stdin and gives one line of answer on stdout; `serve` knows the calls of a
//! cache, a test may add roles of its own. Every answer has a deadline and every worker ends with its `Worker`.

use std::io::{BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sesscache::{Cache, Options, COUNTERS};

use crate::machine::patience;
use crate::record::{hex, monotonic, unhex, Data};

const ROLE: &str = "SESSCACHE_TEST_ROLE";
/// Longest wait for one answer of a worker.
const ANSWER: Duration = Duration::from_secs(60);

/// Makes this test program able to be a worker in the role `serve`, and in those named here, for which `$work` gets the role
/// and the arguments. No two modules of a program have roles of the same name. Runs before the test harness does, so that
/// nothing but the worker speaks on its stdout.
#[macro_export]
macro_rules! roles {
    ($($work:path: $($role:literal),+)?) => {
        #[used]
        #[link_section = ".init_array"]
        static BECOME_WORKER: extern "C" fn() = {
            extern "C" fn start() {
                $crate::become_worker(&[$($(($role, $work)),+)?]);
            }
            start
        };
    };
}

/// What a worker does, given its role and its arguments.
pub type Work = fn(&str, &[String]);

/// For `roles!`: does not return in a worker.
pub fn become_worker(roles: &[(&str, Work)]) {
    let Some(role) = std::env::var_os(ROLE) else { return };
    if role == "serve" {
        serve();
    } else {
        let Some((role, work)) = roles.iter().find(|(name, _)| role == *name) else { return };
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        work(role, &arguments);
    }
    std::process::exit(0);
}

/// The role that does what it is told with a cache.
pub fn serve() {
    let mut cache = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a command");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match obey(&mut cache, &words) {
            Ok(answer) => format!("ok {answer}"),
            Err(error) => format!("err {:?} {}", error.status, error.to_string().replace('\n', " ")),
        };
        println!("{answer}");
    }
}

/// One command. A worker that does not understand panics, and its test finds the pipe closed.
fn obey(slot: &mut Option<Cache>, words: &[&str]) -> sesscache::Result<String> {
    let number = |at: usize| words[at].parse::<i64>().expect("a number");
    let nothing = |()| String::new();
    match words[0] {
        "open" => {
            *slot = None;
            *slot = Some(Cache::open(words[1], &Options::parse(&words[2..].join(" "))?)?);
            return Ok(String::new());
        }
        // Opens and puts at an instant of the monotonic clock that other workers were told as well.
        "race" => {
            *slot = None;
            let at = words[1].parse().expect("a time");
            let options = Options::parse(&words[6..].join(" "))?;
            while monotonic() < at {
                std::hint::spin_loop();
            }
            let cache = Cache::open(words[2], &options)?;
            let data = Data { len: 100, seed: words[4].parse().expect("a seed") };
            let put = cache.put(&unhex(words[3]), &data.bytes(), number(5));
            *slot = Some(cache);
            return put.map(nothing);
        }
        "close" => {
            *slot = None;
            return Ok(String::new());
        }
        "umask" => {
            let mask = libc::mode_t::from_str_radix(words[1], 8).expect("an octal mask");
            // SAFETY: umask cannot fail and touches no memory.
            unsafe { libc::umask(mask) };
            return Ok(String::new());
        }
        _ => {}
    }
    let cache = slot.as_ref().expect("a cache that was opened");
    match words[0] {
        "put" => {
            let data = Data { len: number(2) as usize, seed: words[3].parse().expect("a seed") };
            cache.put(&unhex(words[1]), &data.bytes(), number(4)).map(nothing)
        }
        "get" => cache.get(&unhex(words[1]), Data::of),
        "take" => cache.take(&unhex(words[1]), Data::of),
        "remove" => cache.remove(&unhex(words[1])).map(nothing),
        "issue" => cache.issue_id(Duration::from_micros(number(1) as u64)).map(|id| hex(&id)),
        "flush" => cache.flush().map(nothing),
        "sweep" => cache.sweep(number(1) as usize).map(|n| n.to_string()),
        "stats" => cache.stats().map(|stats| stats.values().map(|n| n.to_string()).join(" ")),
        other => panic!("a worker cannot {other}"),
    }
}

/// The command that stores a record.
pub fn put_line(id: &[u8], data: Data, expires: i64) -> String {
    format!("put {} {} {} {expires}", hex(id), data.len, data.seed)
}

/// Why a worker's cache did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: String,
    pub detail: String,
}

/// A process of this test program in a role.
pub struct Worker {
    child: Child,
    heard: Vec<u8>,
}

impl Worker {
    /// The role `serve`, with the store open.
    pub fn open(path: &Path, options: &str) -> Worker {
        let mut worker = Worker::start("serve", &[]);
        worker.reopen(path, options).unwrap_or_else(|e| panic!("a worker cannot open {}: {e:?}", path.display()));
        worker
    }

    pub fn start(role: &str, arguments: &[&str]) -> Worker {
        Worker::start_with(role, arguments, |_| {})
    }

    /// `change` may set the environment.
    pub fn start_with(role: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(arguments).env(ROLE, role);
        change(&mut command);
        Worker::run(command)
    }

    /// A command that is, or starts, a worker in this role.
    pub fn run_as(role: &str, mut command: Command) -> Worker {
        command.env(ROLE, role);
        Worker::run(command)
    }

    fn run(mut command: Command) -> Worker {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let die_with_test = || {
            // SAFETY: prctl with these arguments only sets a flag of the calling process.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the hook makes one system call; it neither allocates nor locks.
        unsafe { command.pre_exec(die_with_test) };
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Worker { child, heard: Vec::new() }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a worker that listens");
        input.write_all(format!("{line}\n").as_bytes()).expect("a worker that is alive");
    }

    /// The next line. Fails the test when the worker is gone or silent for too long.
    pub fn hear(&mut self) -> String {
        self.try_hear(ANSWER).unwrap_or_else(|| panic!("worker {} ended in the middle", self.pid()))
    }

    /// The next line, `None` when there will be none. Fails the test past the deadline.
    pub fn try_hear(&mut self, deadline: Duration) -> Option<String> {
        let deadline = patience(deadline);
        let end = Instant::now() + deadline;
        loop {
            if let Some(at) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=at).collect();
                return Some(String::from_utf8(line).expect("UTF-8").trim_end().to_owned());
            }
            let output = self.child.stdout.as_mut().expect("a worker that speaks");
            let left = end.saturating_duration_since(Instant::now()).as_millis() as libc::c_int;
            let mut poll = libc::pollfd { fd: output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as told.
            let ready = unsafe { libc::poll(&mut poll, 1, left) };
            assert!(ready > 0, "worker {} is stuck: no answer for {deadline:?}", self.child.id());
            let mut part = [0; 65_536];
            match output.read(&mut part).expect("the worker's answer") {
                0 => return None,
                n => self.heard.extend_from_slice(&part[..n]),
            }
        }
    }

    /// No more commands.
    pub fn say_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What is left to hear until the worker ends.
    pub fn hear_rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.try_hear(ANSWER)).collect()
    }

    pub fn ask(&mut self, line: &str) -> Result<String, Refused> {
        self.say(line);
        let answer = self.hear();
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            ("err", rest) => {
                let (status, detail) = rest.split_once(' ').unwrap_or((rest, ""));
                Err(Refused { status: status.to_owned(), detail: detail.to_owned() })
            }
            _ => panic!("worker {} answers '{answer}' to '{line}'", self.pid()),
        }
    }

    pub fn reopen(&mut self, path: &Path, options: &str) -> Result<(), Refused> {
        self.ask(format!("open {} {options}", path.display()).trim_end()).map(drop)
    }

    pub fn put(&mut self, id: &[u8], data: Data, expires: i64) -> Result<(), Refused> {
        self.ask(&put_line(id, data, expires)).map(drop)
    }

    /// True when it is there and is `data`, false when there is none. Fails the test when it is something else.
    pub fn get(&mut self, id: &[u8], data: Data) -> bool {
        self.found("get", id, data)
    }

    pub fn take(&mut self, id: &[u8], data: Data) -> bool {
        self.found("take", id, data)
    }

    fn found(&mut self, call: &str, id: &[u8], expected: Data) -> bool {
        match self.ask(&format!("{call} {}", hex(id))) {
            Ok(found) => {
                let same = found == expected.digest();
                assert!(same, "{call} of {} gives what nobody stored last: {found}, not {expected:?}", hex(id));
                true
            }
            Err(refused) if refused.status == "NotFound" => false,
            Err(refused) => panic!("{call} of {} is refused: {refused:?}", hex(id)),
        }
    }

    /// A fresh id.
    pub fn issue(&mut self, life: Duration) -> Vec<u8> {
        let id = self.ask(&format!("issue {}", life.as_micros()));
        unhex(&id.unwrap_or_else(|e| panic!("no id is given out: {e:?}")))
    }

    /// A row of the statistics.
    pub fn stat(&mut self, name: &str) -> u64 {
        let all = self.ask("stats").unwrap_or_else(|e| panic!("there are no statistics: {e:?}"));
        let at = COUNTERS.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| panic!("there is no counter {name}"));
        all.split(' ').nth(at).and_then(|n| n.parse().ok()).expect("a number")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill touches no memory; the child is not yet reaped, so the number is still its own.
        let code = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(code, 0, "worker {} is gone", self.pid());
    }

    /// Kills it and says how it ended, which may have been before.
    pub fn kill(mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().expect("wait for a killed worker")
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("look at a worker")
    }

    /// No more commands; the worker must end well.
    pub fn finish(mut self) {
        self.say_end();
        let rest = self.hear_rest();
        assert!(rest.is_empty(), "a worker says more than it was asked: {rest:?}");
        let status = self.child.wait().expect("wait for a worker");
        assert!(status.success(), "a worker ended with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
