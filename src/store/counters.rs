//! The counters of all processes, and what they were within the last minute: a part of the control page.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::{Counter, COUNTERS};
use crate::sys::clock;

/// Threads spread over the shards, so that counting is no fight for a cache line.
pub(super) const SHARDS: usize = 32;
/// Samples of the counters that are kept: one in so many milliseconds, for a little over a minute.
const SAMPLES: usize = 14;
const SAMPLE_EVERY: u64 = 5 * clock::SECOND;

#[repr(C)]
pub(crate) struct Counters {
    shards: [Shard; SHARDS],
    /// A ring by the time of day.
    samples: [Sample; SAMPLES],
}

#[repr(C, align(64))]
struct Shard([AtomicU64; COUNTERS]);

/// What the counters were at a moment.
#[repr(C)]
struct Sample {
    /// In milliseconds; 0 while it is being written.
    at: AtomicU64,
    counters: [AtomicU64; COUNTERS],
}

impl Counters {
    /// Counts.
    #[inline]
    pub(crate) fn add(&self, shard: usize, counter: Counter, n: u64) {
        self.shards[shard % SHARDS].0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum of all shards.
    pub(crate) fn total(&self) -> [u64; COUNTERS] {
        let mut sum = [0_u64; COUNTERS];
        for shard in &self.shards {
            for (sum, counter) in sum.iter_mut().zip(&shard.0) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// Keeps a sample when one is due. Called every second or so while there is traffic; while there is none, nothing is
    /// counted either.
    pub(crate) fn keep_sample(&self) {
        let now = clock::wall_millis();
        let sample = &self.samples[(now / SAMPLE_EVERY) as usize % SAMPLES];
        let at = sample.at.load(Ordering::Relaxed);
        if at / SAMPLE_EVERY == now / SAMPLE_EVERY
            || sample.at.compare_exchange(at, 0, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        for (kept, counter) in sample.counters.iter().zip(self.total()) {
            kept.store(counter, Ordering::Relaxed);
        }
        sample.at.store(now, Ordering::Release);
    }

    /// The counters as they were a minute ago, or as long ago as is known if that is less: with how long ago, in
    /// milliseconds. `None` when nothing was counted for long, or not yet.
    pub(crate) fn a_minute_ago(&self) -> Option<(u64, [u64; COUNTERS])> {
        let now = clock::wall_millis();
        let read = |sample: &Sample| {
            let at = sample.at.load(Ordering::Acquire);
            let counters = std::array::from_fn(|n| sample.counters[n].load(Ordering::Relaxed));
            // Written meanwhile, or by a clock that was set back since: of no use.
            let whole = at != 0 && at <= now && sample.at.load(Ordering::Acquire) == at;
            whole.then(|| (now - at, counters))
        };
        let all: Vec<_> = self.samples.iter().filter_map(read).collect();
        let before = all.iter().filter(|(age, _)| *age >= clock::MINUTE).min_by_key(|(age, _)| *age);
        // From a sample to the next nothing was counted, so an older one holds for a minute ago as well.
        let before = before.map(|(_, counters)| (clock::MINUTE, *counters));
        before.or_else(|| all.iter().max_by_key(|(age, _)| *age).copied())
    }
}
