//! What clients, chaos and the table know in common: what happened to which worker when, what was measured, what harm
//! was done.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// So many harms are enough to know.
const HOPELESS: usize = 20;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    pub fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

/// Of the connections since the last row.
#[derive(Default)]
pub struct Tally {
    pub micros: Vec<u64>,
    pub offered: u64,
    pub resumed: u64,
    pub early: u64,
    pub replays: u64,
    pub rude: u64,
    /// Cut off by a kill of ours.
    pub lost: u64,
}

#[derive(Default)]
struct Workers {
    /// Stopped from, and until when; `None`: still.
    stops: HashMap<u32, Vec<(Instant, Option<Instant>)>>,
    kills: Vec<Instant>,
}

pub struct Shared {
    pub bound: Duration,
    ended: AtomicBool,
    /// Flushes that have begun, and that are done.
    pub flush_begun: AtomicU64,
    pub flush_done: AtomicU64,
    tally: Mutex<Tally>,
    workers: Mutex<Workers>,
    harms: Mutex<Vec<String>>,
    events: Mutex<BTreeMap<&'static str, u64>>,
    begin: Instant,
    words: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    pub fn new(bound: Duration, words: PathBuf) -> Shared {
        Shared {
            bound,
            ended: AtomicBool::new(false),
            flush_begun: AtomicU64::new(0),
            flush_done: AtomicU64::new(0),
            tally: Mutex::default(),
            workers: Mutex::default(),
            harms: Mutex::default(),
            events: Mutex::default(),
            begin: Instant::now(),
            words,
        }
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub fn harm(&self, what: String) {
        let what = format!("after {:.1} s: {what}", self.begin.elapsed().as_secs_f64());
        eprintln!("HARM {what}");
        lock(&self.harms).push(what);
    }

    /// What workers said about the connection from that port.
    pub fn words_about(&self, port: u16) -> String {
        let all = std::fs::read_to_string(&self.words).unwrap_or_default();
        // Ports are used again: the last line is the one.
        let mut lines = all.lines().rev().filter_map(|line| line.strip_prefix(&format!("{port} ")));
        lines.next().unwrap_or("nothing").to_owned()
    }

    pub fn harms(&self) -> Vec<String> {
        lock(&self.harms).clone()
    }

    pub fn is_hopeless(&self) -> bool {
        lock(&self.harms).len() >= HOPELESS
    }

    pub fn event(&self, name: &'static str) {
        *lock(&self.events).entry(name).or_default() += 1;
    }

    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.events).clone()
    }

    pub fn count(&self, f: impl FnOnce(&mut Tally)) {
        f(&mut lock(&self.tally));
    }

    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut lock(&self.tally))
    }

    /// To be called before the signal is sent: nobody may be hit before it is written down.
    pub fn kill(&self) {
        lock(&self.workers).kills.push(Instant::now());
    }

    pub fn stop(&self, pid: u32) {
        lock(&self.workers).stops.entry(pid).or_default().push((Instant::now(), None));
    }

    /// To be called after the signal was sent.
    pub fn go_on(&self, pid: u32) {
        if let Some((_, until)) = lock(&self.workers).stops.get_mut(&pid).and_then(|stops| stops.last_mut()) {
            *until = Some(Instant::now());
        }
    }

    /// Whether any worker was killed since then. A connection may be lost a moment before it is known.
    pub fn killed_since(&self, begin: Instant) -> bool {
        lock(&self.workers).kills.last().is_some_and(|at| *at + Duration::from_millis(200) >= begin)
    }

    /// Whether this worker was stopped at any time since then.
    pub fn stopped_since(&self, pid: u32, begin: Instant) -> bool {
        let workers = lock(&self.workers);
        let stops = workers.stops.get(&pid).map(Vec::as_slice).unwrap_or_default();
        stops.iter().any(|(_, until)| until.is_none_or(|until| until >= begin))
    }
}
