//! The counters and gauges of a store, and counting from outside an operation.

use std::sync::Arc;
use std::time::Duration;

use super::control::Control;
use super::env::{Fault, Txn};
use super::{thread, Store};
use crate::stats::{Counter, Stats};
use crate::status::Result;

/// The table of `stats.rs`, of a store with nothing in it.
pub(crate) fn of(control: &Control, capacity: u64, generation: u64) -> Stats {
    Stats { capacity, generation, ..Stats::default() }.with_counters(control.counters().total())
}

/// How much a generation holds: entries and pages.
pub(crate) fn contents(txn: &mut Txn) -> Result<(usize, usize), Fault> {
    Ok((txn.entries()?, txn.used_pages()?))
}

/// Adds what a generation holds.
pub(crate) fn add(stats: &mut Stats, (entries, pages): (usize, usize), page: usize) {
    // One entry is the sentinel.
    stats.sessions += entries.saturating_sub(1) as u64;
    stats.used_bytes += (pages * page) as u64;
}

impl Store {
    /// Counts, from outside an operation.
    pub(crate) fn count(self: &Arc<Self>, counter: Counter, n: u64) {
        if n > 0 {
            let counted = thread::with(self, |thread| thread.opened.control.counters().add(thread.shard, counter, n));
            counted.unwrap_or_else(|_| self.control().count(counter, n));
        }
    }

    /// Everything in the table of `stats.rs`; where the store cannot be opened, what the control page says.
    pub(crate) fn stats(self: &Arc<Self>) -> Result<Stats> {
        let whole = thread::with(self, |thread| {
            let now = &thread.opened.now;
            let mut stats = of(&thread.opened.control, now.page().shape().capacity, now.number);
            for snapshot in [Some(&mut thread.now), thread.before.as_mut()].into_iter().flatten() {
                let held = self.read(snapshot, contents)?;
                add(&mut stats, held, snapshot.generation.env.page);
            }
            Ok(stats)
        });
        whole.unwrap_or_else(|_| {
            let control = self.control();
            Ok(of(control, control.wanted().capacity, control.current().number))
        })
    }

    /// The counters as they were about a minute ago, the gauges as they are.
    pub(crate) fn recent(self: &Arc<Self>) -> Result<Option<(Duration, Stats)>> {
        let now = self.stats()?;
        let before = self.control().counters().a_minute_ago();
        Ok(before.map(|(age, counters)| (Duration::from_millis(age), now.with_counters(counters))))
    }
}
