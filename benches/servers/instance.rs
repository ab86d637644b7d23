//! A running server: started, asked for its processes and what they cost, reloaded, killed, stopped.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::{Client, Tls};
use crate::machine::{go_on, wait_until, Result};
use crate::subject::{Cache, Site, Subject};

/// How long a server may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running instance. Dropped, it is stopped, and killed when it does not end.
pub struct Instance<'a> {
    pub subject: &'a dyn Subject,
    pub site: Site,
    pub cache: Cache,
    leader: Option<Child>,
}

impl<'a> Instance<'a> {
    /// Starts it and waits until it serves.
    pub fn start(subject: &'a dyn Subject, site: Site, cache: Cache) -> Result<Instance<'a>> {
        let mut instance = Instance { subject, site, cache, leader: None };
        instance.run()?;
        Ok(instance)
    }

    /// Starts it again after [`Instance::stop`], on the same site.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.subject.command(&self.site, self.cache)?;
        let output = fs::OpenOptions::new().create(true).append(true).open(self.site.file("output.log"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        self.leader = Some(spawn(&mut command)?);
        let client = Client::new(Tls::V13)?;
        let serves = wait_until(PATIENCE, || self.is_over() || client.visit(self.site.port, None).is_ok_and(|_| true))?;
        if serves && !self.is_over() && wait_until(PATIENCE, || self.workers().len() >= self.site.workers)? {
            return Ok(());
        }
        Err(format!("{} does not serve; it said:\n{}", self.subject.name(), self.said()).into())
    }

    fn is_over(&mut self) -> bool {
        self.leader.as_mut().is_none_or(|leader| leader.try_wait().is_ok_and(|status| status.is_some()))
    }

    /// The process that was started.
    pub fn leader(&self) -> u32 {
        self.leader.as_ref().expect("a running server").id()
    }

    /// The processes below it.
    pub fn workers(&self) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        let mut open = vec![self.leader()];
        while let Some(pid) = open.pop() {
            let below = children(pid);
            open.extend(&below);
            found.extend(below);
        }
        found
    }

    /// CPU time of all processes so far, those beside the server included, user and system, all threads, in microseconds.
    pub fn cpu(&self) -> f64 {
        let mut all = self.workers();
        all.push(self.leader());
        all.extend(self.subject.beside(self.cache));
        all.into_iter().filter_map(cpu_of).sum()
    }

    /// Spreads the workers evenly over the processors and keeps them there. Two instances that are compared then meet
    /// the same neighbours; otherwise one may sit beside a busy process for as long as the measurement takes.
    pub fn spread(&self) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for (i, pid) in self.workers().into_iter().enumerate() {
            for thread in threads(pid) {
                pin(thread, i % processors);
            }
        }
    }

    /// Sends a signal to the process that was started.
    pub fn signal(&self, number: i32) {
        signal(self.leader(), number);
    }

    pub fn reload(&self) -> Result<()> {
        self.subject.reload(self)?;
        self.serves_again()
    }

    pub fn kill_workers(&self) -> Result<()> {
        self.subject.kill_workers(self)?;
        self.serves_again()
    }

    fn serves_again(&self) -> Result<()> {
        let client = Client::new(Tls::V13)?;
        match wait_until(PATIENCE, || client.visit(self.site.port, None).is_ok())? {
            true => Ok(()),
            false => Err(format!("{} does not serve any more; it said:\n{}", self.subject.name(), self.said()).into()),
        }
    }

    /// Ends it in order.
    pub fn stop(&mut self) -> Result<()> {
        if self.leader.is_none() {
            return Ok(());
        }
        let group = self.leader();
        self.signal(self.subject.stop_signal());
        // The user's patience has ended when this is called after an interruption: `wait_until` says so at once.
        let ended = wait_until(PATIENCE, || self.is_over());
        let alone = wait_until(Duration::from_secs(5), || !signal_group(group, 0));
        self.kill();
        if !ended? {
            return Err(format!("{} does not end when told to", self.subject.name()).into());
        }
        if !alone? {
            return Err(format!("{} is gone but has left processes running", self.subject.name()).into());
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut leader) = self.leader.take() {
            signal_group(leader.id(), libc::SIGKILL);
            // Workers with a session of their own are in no group of ours.
            for pid in children(leader.id()) {
                signal(pid, libc::SIGKILL);
            }
            let _ = leader.kill();
            let _ = leader.wait();
        }
    }

    /// Everything it has written.
    pub fn said(&self) -> String {
        let read = |name| fs::read(self.site.file(name)).unwrap_or_default();
        let text = [read("error.log"), read("output.log")].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What of it an operator would have to look at.
    pub fn complaints(&self) -> Vec<String> {
        self.subject.complaints(&self.said())
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let ended = self.stop();
        // After an interruption it was killed, and the user knows why.
        if let (Err(error), Ok(())) = (ended, go_on()) {
            eprintln!("{error}");
        }
    }
}

/// Starts a command in a process group of its own. It is told to end when the harness is gone, however that went.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.process_group(0);
    let hook = || {
        // SAFETY: prctl with these arguments only sets a flag of the calling process.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the hook makes one system call; it neither allocates nor locks.
    unsafe { command.pre_exec(hook) };
    command.spawn().map_err(|error| format!("cannot start {command:?}: {error}").into())
}

/// Sends a signal to one process; false when it is gone.
pub fn signal(pid: u32, number: i32) -> bool {
    // SAFETY: kill touches no memory of ours.
    unsafe { libc::kill(pid as i32, number) == 0 }
}

fn signal_group(leader: u32, number: i32) -> bool {
    // SAFETY: kill touches no memory of ours.
    unsafe { libc::kill(-(leader as i32), number) == 0 }
}

/// The threads of a process; none when it is gone.
fn threads(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

fn pin(thread: u32, processor: usize) {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit of a set of ours; a number beyond its end is ignored.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: reads a set of the size given. Failure leaves the thread where it is.
    unsafe { libc::sched_setaffinity(thread as libc::pid_t, size_of::<libc::cpu_set_t>(), &set) };
}

/// The children of all threads of a process.
fn children(pid: u32) -> HashSet<u32> {
    threads(pid)
        .into_iter()
        .filter_map(|thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// CPU time of a process, all its threads, in microseconds; `None` when it is gone.
fn cpu_of(pid: u32) -> Option<f64> {
    let mut clock = 0;
    // SAFETY: writes one clock id through a valid pointer.
    if unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) } != 0 {
        return None;
    }
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec through a valid pointer.
    let code = unsafe { libc::clock_gettime(clock, &mut used) };
    (code == 0).then_some(used.tv_sec as f64 * 1e6 + used.tv_nsec as f64 / 1e3)
}
