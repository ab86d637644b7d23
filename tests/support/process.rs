//! Child processes that cannot outlive the test: own process group, deadline, death with the thread that started them.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::patience;

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

impl Finished {
    /// Panics with everything the command said unless it exited with 0. `complaint` is what a user would notice.
    pub fn expect_success(self, complaint: &str) -> Finished {
        assert!(self.status.success(), "{complaint}\n{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$ {}\n{}\n--- stdout\n{}--- stderr\n{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// Starts a command in a process group of its own. SIGTERM reaches it when the starting thread ends, so that a test
/// program that is killed leaves no server behind.
pub fn spawn_in_group(command: &mut Command) -> Child {
    let parent = std::process::id();
    command.process_group(0);
    let hook = move || {
        // SAFETY: prctl with these arguments only sets a flag of the calling process.
        let code = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        match code == 0 && std::os::unix::process::parent_id() == parent {
            true => Ok(()),
            false => Err(std::io::Error::other("the test is gone")),
        }
    };
    // SAFETY: between fork and exec the hook makes two system calls; neither allocates nor locks.
    unsafe { command.pre_exec(hook) };
    command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
}

/// Copies a program that is to be run. Another process does it: a child that some thread starts meanwhile would have the copy open
/// for writing until it executes, and nothing executes such a file (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    run(cp.arg("--").args([from, to]), Duration::from_secs(30), "").expect_success("a program is not copied");
}

/// Sends a signal to a whole process group; false when nobody is left in it.
pub fn signal_group(leader: u32, signal: i32) -> bool {
    // SAFETY: kill touches no memory of ours.
    unsafe { libc::kill(-(leader as i32), signal) == 0 }
}

/// Sends a signal to one process; false when it is gone.
pub fn signal(pid: u32, signal: i32) -> bool {
    // SAFETY: kill touches no memory of ours.
    unsafe { libc::kill(pid as i32, signal) == 0 }
}

/// Waits for a child; None when the deadline has passed.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience(deadline);
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a command to its end, with `input` on its stdin. Past the deadline its whole group is killed and the test
/// fails. What the command has started and left running is killed, too.
pub fn run(command: &mut Command, deadline: Duration, input: &str) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_in_group(command);
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let stdout = collect(child.stdout.take().expect("stdout is a pipe"));
    let stderr = collect(child.stderr.take().expect("stderr is a pipe"));
    // A command that does not read its input is free not to.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ended = wait(&mut child, deadline);
    signal_group(child.id(), libc::SIGKILL);
    let status = ended.unwrap_or_else(|| child.wait().expect("wait for a killed child"));
    let finished = Finished {
        status,
        stdout: stdout.join().expect("stdout was read"),
        stderr: stderr.join().expect("stderr was read"),
        command: format!("{command:?}"),
    };
    assert!(ended.is_some(), "still running after {} s\n{finished}", patience(deadline).as_secs());
    finished
}

/// Reads a pipe to its end in a thread, so that a talkative command never waits for us.
pub fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Signal and exit code in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        _ => format!("{status}"),
    }
}
