//! What is measured: anything that keeps bytes under ids of 32 bytes. First of all, sesscache itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sesscache::{Cache, Error, Options, Status};

use crate::support::measure::Random;

pub type Id = [u8; 32];

/// How long everything that is stored here may live, in seconds: longer than any run.
pub const LIFE: u64 = 3_600;

/// Whatever fails inside panics: a figure of something that did not work would be worthless.
pub trait Subject {
    /// An id as this subject likes it best, for a record that is put soon.
    fn fresh(&mut self) -> Id;
    fn put(&mut self, id: &Id, value: &[u8]);
    /// Bytes found, copied out; `None` when there is nothing.
    fn get(&mut self, id: &Id) -> Option<usize>;
    /// Puts many; where there is a faster way than one by one, in that way.
    fn fill(&mut self, ids: &[Id], value: &[u8]) {
        ids.iter().for_each(|id| self.put(id, value));
    }
}

/// A subject that can hand a record out for the only time.
pub trait Takes: Subject {
    /// Like `get`, and deletes it.
    fn take(&mut self, id: &Id) -> Option<usize>;
}

/// sesscache through its Rust API.
pub struct Ours {
    pub cache: Arc<Cache>,
    out: Vec<u8>,
}

impl Ours {
    /// In a directory of its own, which it makes.
    pub fn open(directory: &Path, capacity_mib: usize) -> Ours {
        Ours::open_with(directory, &format!("capacity={capacity_mib}MiB"))
    }

    /// The same, with options of the benchmark's own.
    pub fn open_with(directory: &Path, options: &str) -> Ours {
        let options = Options::parse(options).expect("options");
        let cache = Cache::open(directory, &options).expect("the cache opens");
        cache.set_log(Some(Box::new(|_, message| eprintln!("sesscache: {}", message.to_string_lossy()))));
        Ours { cache: Arc::new(cache), out: Vec::new() }
    }

    /// The same cache in a forked child, which uses what it inherited as if nothing had happened.
    pub fn inherited(&self) -> Ours {
        Ours { cache: Arc::clone(&self.cache), out: Vec::new() }
    }

    pub fn stat(&self, name: &str) -> f64 {
        self.cache.stats().expect("statistics").get(name).expect("a counter of that name") as f64
    }
}

impl Subject for Ours {
    fn fresh(&mut self) -> Id {
        self.cache.issue_id(Duration::from_secs(LIFE)).expect("an id")
    }

    fn put(&mut self, id: &Id, value: &[u8]) {
        match self.cache.put(id, value, expires()) {
            // Past its deadline the store gives up, as in a server; the wait is in the figure.
            Ok(()) | Err(Error { status: Status::Busy, .. }) => {}
            Err(error) => panic!("a put: {error}"),
        }
    }

    fn get(&mut self, id: &Id) -> Option<usize> {
        let out = &mut self.out;
        self.cache.get(id, |data| copy(out, data)).ok()
    }
}

impl Takes for Ours {
    fn take(&mut self, id: &Id) -> Option<usize> {
        let out = &mut self.out;
        self.cache.take(id, |data| copy(out, data)).ok()
    }
}

/// Copies out, as every user of a store must.
pub fn copy(out: &mut Vec<u8>, data: &[u8]) -> usize {
    out.clear();
    out.extend_from_slice(data);
    std::hint::black_box(out.as_slice()).len()
}

/// A moment after the end of the run, in seconds.
fn expires() -> i64 {
    thread_local! {
        static AT: i64 = (micros() / 1_000_000 + LIFE) as i64;
    }
    AT.with(|at| *at)
}

/// The wall clock.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64
}

/// What a subject was filled with, in an order that has nothing to do with time.
pub struct Stock {
    pub ids: Vec<Id>,
    /// Ids of the same times that were never put.
    pub absent: Vec<Id>,
    pub value: Vec<u8>,
    random: Random,
    at: usize,
}

impl Stock {
    /// Fills an empty subject with `n` records of `size` bytes.
    pub fn fill(subject: &mut dyn Subject, n: usize, size: usize) -> Stock {
        let mut random = Random(n as u64 + size as u64);
        let mut value = vec![0; size];
        random.fill(&mut value);
        let (mut ids, mut absent) = (Vec::with_capacity(n), Vec::new());
        while ids.len() < n {
            // Few at a time: an id is used soon after it was made, as in a handshake.
            let chunk: Vec<Id> = (0..64.min(n - ids.len())).map(|_| subject.fresh()).collect();
            subject.fill(&chunk, &value);
            ids.extend(chunk);
            absent.extend([subject.fresh(), subject.fresh()]);
        }
        random.shuffle(&mut ids);
        random.shuffle(&mut absent);
        Stock { ids, absent, value, random, at: 0 }
    }

    /// The next `n` ids, all different for as long as there are enough.
    pub fn some(&mut self, n: usize) -> &[Id] {
        if self.at + n > self.ids.len() {
            self.at = 0;
        }
        self.at += n;
        &self.ids[self.at - n..self.at]
    }

    /// Ids as an attacker would invent them.
    pub fn forged(&mut self, n: usize) -> Vec<Id> {
        (0..n)
            .map(|_| {
                let mut id = [0; 32];
                self.random.fill(&mut id);
                id
            })
            .collect()
    }

    /// Takes `n` ids out of the stock.
    pub fn remove(&mut self, n: usize) -> Vec<Id> {
        (0..n)
            .map(|_| {
                let at = self.random.below(self.ids.len());
                self.ids.swap_remove(at)
            })
            .collect()
    }
}
