//! Records that tests store, and what is random about them.

use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sesscache::{Cache, Options, Stats};

/// Opens a cache in this process.
pub fn open(path: &Path, options: &str) -> Cache {
    let options = Options::parse(options).expect("options that are acceptable");
    Cache::open(path, &options).unwrap_or_else(|e| panic!("{} does not open: {e}", path.display()))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() as i64
}

/// A row of the statistics.
pub fn row(stats: &Stats, name: &str) -> u64 {
    stats.get(name).unwrap_or_else(|| panic!("there is no counter {name}"))
}

/// Nanoseconds of the clock that all processes share and nobody sets.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec through a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What a record holds, in two numbers: the bytes follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub len: usize,
    pub seed: u64,
}

impl Data {
    /// Bytes that hardly any other seed gives.
    pub fn bytes(self) -> Vec<u8> {
        let mut random = Random(self.seed);
        let mut bytes: Vec<u8> = (0..self.len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        bytes.truncate(self.len);
        bytes
    }

    pub fn is(self, bytes: &[u8]) -> bool {
        bytes.len() == self.len && bytes == self.bytes()
    }

    /// What a worker answers that found it.
    pub fn digest(self) -> String {
        Data::of(&self.bytes())
    }

    pub(crate) fn of(bytes: &[u8]) -> String {
        format!("{} {:016x}", bytes.len(), digest(bytes))
    }
}

/// FNV-1a over words.
fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

/// A reproducible generator: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    #[allow(clippy::should_implement_trait)] // endless
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// An id of an application's own choice.
    pub fn id(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(digit).collect()
}
