//! The supervisor of the workers, which is also what happens to them.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sesscache::{Cache, Options};

use crate::place::Place;
use crate::shared::{Random, Shared};
use crate::worker;
use crate::Arguments;

/// Longest stop, in milliseconds: over a second, after which the others begin a new generation.
const LONGEST_STOP: u64 = 1_800;

pub struct Worker {
    child: Child,
    killed: bool,
    stopped_until: Option<Instant>,
    pub begin: Instant,
}

impl Worker {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: touches no memory; the child is not yet reaped, so the number is still its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }
}

pub struct Chaos<'a> {
    shared: Arc<Shared>,
    place: &'a Place,
    listener: TcpListener,
    clock: PathBuf,
    shim: PathBuf,
    /// The first one is never killed: memory and descriptors that are lost slowly show there.
    pub workers: Vec<Worker>,
    random: Random,
    next: Instant,
    full: bool,
    /// Workers that ended by themselves.
    died: u64,
}

impl<'a> Chaos<'a> {
    pub fn begin(arguments: &Arguments, place: &'a Place, shared: Arc<Shared>) -> Chaos<'a> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
        // SAFETY: the descriptor is open; the workers are to inherit it.
        unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETFD, 0) };
        fs::create_dir_all(place.beside()).expect("a directory beside the store");
        let (clock, shim) = (place.beside().join("clock"), place.beside().join("clock.so"));
        let source = support::root().join("tests/support/clock.c");
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-O2", "-fPIC", "-shared", "-o"]).arg(&shim).arg(source).arg("-ldl");
        assert!(cc.status().is_ok_and(|status| status.success()), "`{cc:?}` fails; a C compiler is needed");
        fs::write(place.words(), "").expect("a file for words");
        fs::write(&clock, [0; 16]).expect("the clock's setting");
        let mut chaos = Chaos {
            shared,
            place,
            listener,
            clock,
            shim,
            workers: Vec::new(),
            random: Random(arguments.seed),
            next: Instant::now() + Duration::from_secs(2),
            full: false,
            died: 0,
        };
        chaos.cache("capacity=2MiB").expect("a store");
        for _ in 0..arguments.workers {
            let worker = chaos.start();
            chaos.workers.push(worker);
        }
        chaos
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    fn start(&self) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.env(worker::LISTENER, self.listener.as_raw_fd().to_string());
        command.env(worker::STORE, self.place.store()).env(worker::WORDS, self.place.words());
        command.env("LD_PRELOAD", &self.shim).env("SESSCACHE_TEST_CLOCK", &self.clock);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Worker { child, killed: false, stopped_until: None, begin: Instant::now() }
    }

    fn cache(&self, options: &str) -> sesscache::Result<Cache> {
        let options = Options::parse(&format!("{} {options}", worker::OPTIONS))?;
        Cache::open(self.place.store(), &options)
    }

    /// Waits a moment, sees to the workers, and does something to somebody when it is time.
    pub fn step(&mut self, end: Instant) {
        std::thread::sleep(Duration::from_millis(10));
        self.see_to_workers();
        let now = Instant::now();
        if now < self.next || now + Duration::from_secs(2) > end {
            return;
        }
        self.next = now + Duration::from_millis(100 + self.random.below(500));
        match self.random.below(100) {
            0..=24 => self.kill(),
            25..=54 => self.stop(),
            55..=60 => self.flush(),
            61..=74 => self.fill(),
            75..=84 => self.step_clock(),
            85..=92 => self.rotate_keys(),
            _ => self.resize(),
        }
    }

    fn see_to_workers(&mut self) {
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            if worker.stopped_until.is_some_and(|until| Instant::now() >= until) {
                worker.stopped_until = None;
                worker.signal(libc::SIGCONT);
                self.shared.go_on(worker.pid());
            }
            let Some(status) = worker.child.try_wait().expect("wait for a worker") else { continue };
            if !(worker.killed && status.signal() == Some(libc::SIGKILL)) {
                self.died += 1;
                // Its clients are cut off, which is this harm and not another.
                self.shared.kill();
                self.shared.harm(format!("worker {} ends by itself: {status}", worker.pid()));
            }
            self.workers[at] = self.start();
        }
    }

    /// Any worker but the first.
    fn victim(&mut self) -> usize {
        1 + self.random.below(self.workers.len() as u64 - 1) as usize
    }

    fn kill(&mut self) {
        let at = self.victim();
        let worker = &mut self.workers[at];
        worker.killed = true;
        self.shared.kill();
        worker.signal(libc::SIGKILL);
        self.shared.event("kill");
    }

    fn stop(&mut self) {
        let at = self.random.below(self.workers.len() as u64) as usize;
        let running = self.workers.iter().filter(|worker| worker.stopped_until.is_none()).count();
        let long = self.random.below(LONGEST_STOP);
        let worker = &mut self.workers[at];
        // Somebody has to answer.
        if running < 2 || worker.stopped_until.is_some() || worker.killed {
            return;
        }
        worker.stopped_until = Some(Instant::now() + Duration::from_millis(10 + long));
        self.shared.stop(worker.pid());
        worker.signal(libc::SIGSTOP);
        self.shared.event("stop");
    }

    fn flush(&mut self) {
        let Ok(cache) = self.cache("") else { return self.shared.event("flush refused") };
        self.shared.flush_begun.fetch_add(1, Ordering::SeqCst);
        let begun = self.shared.flush_begun.load(Ordering::SeqCst);
        match cache.flush() {
            Ok(()) => {
                self.shared.flush_done.store(begun, Ordering::SeqCst);
                self.shared.event("flush");
            }
            // On a full file system there is no room for a new store.
            Err(_) => self.shared.event("flush refused"),
        }
    }

    fn fill(&mut self) {
        if !self.place.is_own {
            return;
        }
        if self.full {
            self.place.empty();
        } else {
            self.place.fill(self.random.below(3) as usize * 100);
            self.shared.event("full file system");
        }
        self.full = !self.full;
    }

    fn set_clock(&self, seconds: i64) {
        let file = fs::OpenOptions::new().write(true).open(&self.clock).expect("the clock's setting");
        file.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0).expect("the clock is set");
    }

    fn step_clock(&mut self) {
        let steps = [0, 0, 1, -1, 5, -5, 60, -60, 1_800, -1_800, 4_000, 86_400];
        let step = steps[self.random.below(steps.len() as u64) as usize];
        self.set_clock(step);
        self.shared.event("clock step");
    }

    /// A new key seals, the one before still opens.
    fn rotate_keys(&mut self) {
        let (path, new) = (self.place.store().join("key"), self.place.store().join("key.rotated"));
        let rotated = fs::read(&path).and_then(|old| {
            let keys = [&self.random.bytes(32)[..], &old[..32]].concat();
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&keys)?;
            fs::rename(&new, &path)
        });
        self.shared.event(if rotated.is_ok() { "key rotation" } else { "key rotation refused" });
    }

    fn resize(&mut self) {
        let options = format!("capacity={}MiB", 1 + self.random.below(4));
        let resized = self.cache(&options).is_ok();
        self.shared.event(if resized { "capacity change" } else { "capacity change refused" });
    }

    /// Ends all trouble and waits until it is over.
    pub fn calm(&mut self) {
        self.place.empty();
        self.set_clock(0);
        let end = Instant::now() + Duration::from_millis(LONGEST_STOP + 1_500);
        while Instant::now() < end {
            self.see_to_workers();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The store's own counters, those that are not 0.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Ok(stats) = self.cache("").and_then(|cache| cache.stats()) else { return Vec::new() };
        let rows = sesscache::COUNTERS.iter().map(|row| row.name).zip(stats.values());
        rows.filter(|(_, value)| *value > 0).collect()
    }

    /// Ends the workers; how many had ended by themselves.
    pub fn finish(mut self) -> u64 {
        self.see_to_workers();
        self.died
    }
}

impl Drop for Chaos<'_> {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}
