//! What has to be done now and then, by whichever thread comes along: once a second, never on a thread of our own.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::control::Current;
use super::evict::Sweep;
use super::generation::{self, Generation};
use super::page::GenerationPage;
use super::trial::NotedTrial;
use super::{thread, try_keys, Store};
use crate::log::{self, Topic};
use crate::stats::Counter;
use crate::sys::clock;

/// Milliseconds between two rounds.
const ROUND: u64 = 1_000;
/// Milliseconds between two looks for dead readers, over all processes.
const READERS: u64 = 10_000;
/// Seconds between two trials of the keys, over all processes.
const TRIALS: u64 = 10;
/// Expired records deleted in a round.
const SWEEP: usize = 256;

/// Whether the last record of a generation has expired. What a clock that was ahead has left does not count.
fn is_over(page: &GenerationPage) -> bool {
    let horizon = page.horizon(clock::coarse_micros()) / 1_000_000;
    if page.newest.get() > horizon {
        page.newest.set(horizon);
    }
    page.newest.get() <= clock::seconds()
}

impl Store {
    /// Does a round when one is due.
    #[inline]
    pub(super) fn maintenance(self: &Arc<Self>) {
        let now = clock::ticks();
        let due = self.maintenance_at.load(Ordering::Relaxed);
        if now >= due
            && self.maintenance_at.compare_exchange(due, now + ROUND, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.round(due == 0);
        }
    }

    /// What each process has to find out for itself, unless it has just opened everything; and what one does for all, which
    /// may well be a child that lives for a single connection.
    #[cold]
    fn round(self: &Arc<Self>, first: bool) {
        let _ = thread::with(self, |thread| {
            let opened = &thread.opened;
            let control = &opened.control;
            if !opened.has_its_files() {
                self.open_anew(opened);
                return None;
            }
            self.look_again(opened);
            if !first && self.is_replaced(opened, Duration::ZERO).is_ok_and(|replaced| replaced) {
                control.note_replaced();
            }
            if !control.round_is_due(ROUND) {
                return None;
            }
            control.counters().keep_sample();
            if control.reader_check_is_due(READERS) {
                let dead = opened.now.bury_readers();
                if dead > 0 {
                    self.log
                        .say(Topic::Readers, log::NOTICE, || format!("freed the slots of {dead} readers that died"));
                }
            }
            if control.trial().is_none_or(|noted| clock::seconds().abs_diff(noted.at) >= TRIALS) {
                let page = opened.now.page();
                // What cannot be read is no matter of the keys.
                if let Ok(newest) = thread.now.read(try_keys::newest) {
                    let trial = try_keys::open(&newest, &mut thread.sealer, page);
                    control.note_trial(NotedTrial {
                        trial,
                        at: clock::seconds(),
                        key_is_foreign: self.dir.key_is_foreign,
                    });
                }
            }
            if opened.now.page().is_suspect() {
                // Who takes the write lock checks the file.
                drop(self.lock(&opened.now));
            }
            if opened.before.as_ref().is_some_and(|before| is_over(before.page())) {
                let current = control.current();
                if control.switch(current, Current { number: current.number, keep: false }) {
                    // What stays because the directory is out of reach, the next one clears away.
                    let _ = self
                        .path_access
                        .begin(Duration::ZERO)
                        .and_then(|_way| self.dir.enter().map(|open| generation::clear(&open, control.current())));
                }
            }
            let page = opened.now.page();
            if page.oldest.get() <= clock::coarse_micros() {
                self.sweep_if_idle(&opened.now)
                    .map(|n| control.counters().add(thread.shard, Counter::Expired, n as u64))
            } else {
                None
            }
        });
    }

    /// Sweeps, unless somebody is writing.
    fn sweep_if_idle(&self, generation: &Generation) -> Option<usize> {
        let locked = generation.lock.acquire(Duration::ZERO).ok()?;
        self.with_room(generation, &locked).ok()?;
        let now = clock::coarse_micros();
        let mut sweep = Sweep::begin(&locked, now);
        generation.env.write(&locked, |write| sweep.expire(write, SWEEP)).ok()?;
        Some(sweep.committed().expired)
    }
}
