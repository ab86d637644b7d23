//! How many handshakes of the attached SSL_CTXs were full and how many resumed. No callback of OpenSSL sees every handshake.
//!
//! Those that a callback sees are counted at once: full ones as their session is made, those of TLS 1.3 with their first ticket.
//! The rest (resumptions in TLS 1.2, handshakes without a session or ticket) are differences of OpenSSL's own counters, which are
//! read as the next ClientHello is answered and as an SSL or SSL_CTX is freed. OpenSSL counts a hit before it is known whether the
//! handshake ends well, twice after a HelloRetryRequest, and as a client too; so a resumption also has to be a handshake that no
//! callback saw being full. OpenSSL counts the end of a TLS 1.3 handshake a moment before a callback sees it: a thread that reads in
//! between counts that one too early as unseen, and the next unseen one not at all. So the sums are off by as many as there are threads
//! in handshakes at most.
//!
//! Callbacks and hits are of the SSL_CTX that was given to SSL_new(3), and the end of a handshake counts in the one that a servername
//! callback has switched to. A handshake that ends in an SSL_CTX of no or another cache counts in the cache of the first: its end is
//! noted when a callback sees it, or, where a session was found for it, as its SSL is freed.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::Arc;

use super::openssl::Ctx;
use crate::stats::Counter;
use crate::store::Store;
use crate::sys::process::incarnation;

/// What is known of one cache in this process.
#[derive(Default)]
pub(super) struct Handshakes {
    process: AtomicU64,
    /// What OpenSSL has counted: handshakes that ended well, and sessions found for handshakes.
    good: AtomicI64,
    hits: AtomicI64,
    /// Sessions that this cache has found and OpenSSL has not refused: known at once, while OpenSSL counts a hit in the SSL_CTX that
    /// was given to SSL_new(3), and the end of the handshake in the one that a servername callback has switched to.
    found: AtomicI64,
    /// What callbacks have seen: handshakes, and resumptions among them.
    seen: AtomicI64,
    seen_resumed: AtomicI64,
    /// What no callback has seen and is counted: handshakes, and resumptions among them.
    unseen: AtomicI64,
    unseen_resumed: AtomicI64,
}

/// OpenSSL's counters of one SSL_CTX as they were last read in this process.
#[derive(Default)]
pub(super) struct LastRead {
    process: AtomicU64,
    good: AtomicI32,
    hits: AtomicI32,
}

impl LastRead {
    /// From here on.
    pub(super) fn begin(&self, ctx: Ctx<'_>) {
        self.good.store(ctx.good_handshakes(), Ordering::Relaxed);
        self.hits.store(ctx.session_hits(), Ordering::Relaxed);
        self.process.store(incarnation(), Ordering::Relaxed);
    }

    /// In a forked child: from before the handshake that a callback sees, of which OpenSSL has counted the end, the hit, or neither.
    pub(super) fn begin_in_child(&self, ctx: Ctx<'_>, ended: bool, hit: bool) {
        if self.process.load(Ordering::Relaxed) != incarnation() {
            self.begin(ctx);
            self.good.fetch_sub(i32::from(ended), Ordering::Relaxed);
            self.hits.fetch_sub(i32::from(hit), Ordering::Relaxed);
        }
    }

    /// Without a handshake whose sessions are of another cache, of which OpenSSL has counted the end, or will.
    pub(super) fn pass(&self, ctx: Ctx<'_>, ended: bool) {
        self.begin_in_child(ctx, ended, false);
        self.good.fetch_add(1, Ordering::Relaxed);
    }

    /// How much they have grown since. A forked child begins with what they are: the parent counts its own.
    fn growth(&self, ctx: Ctx<'_>) -> (i64, i64) {
        if self.process.load(Ordering::Relaxed) != incarnation() {
            self.begin(ctx);
            return (0, 0);
        }
        let since = |last: &AtomicI32, now: i32| {
            if last.load(Ordering::Relaxed) == now {
                return 0;
            }
            // Of two threads one gets the whole difference, or both their parts of it, one of which may be negative.
            i64::from(now.wrapping_sub(last.swap(now, Ordering::Relaxed)))
        };
        (since(&self.good, ctx.good_handshakes()), since(&self.hits, ctx.session_hits()))
    }
}

impl Handshakes {
    /// A callback sees a handshake.
    pub(super) fn see(&self, store: &Arc<Store>, resumed: bool) {
        self.begin_in_child();
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.seen_resumed.fetch_add(i64::from(resumed), Ordering::Relaxed);
        store.count(if resumed { Counter::HandshakesResumed } else { Counter::HandshakesFull }, 1);
    }

    /// A handshake with sessions of this cache has ended in an SSL_CTX that is not attached to it.
    pub(super) fn end_elsewhere(&self) {
        self.begin_in_child();
        self.good.fetch_add(1, Ordering::Relaxed);
    }

    /// A session was found for a handshake.
    pub(super) fn find(&self) {
        self.begin_in_child();
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// OpenSSL has refused what was found so often.
    pub(super) fn refuse(&self, times: u64) {
        self.found.fetch_sub(times as i64, Ordering::Relaxed);
    }

    /// Counts what OpenSSL has counted in an SSL_CTX since the last time and no callback has seen.
    pub(super) fn read(&self, store: &Arc<Store>, ctx: Ctx<'_>, last: &LastRead) {
        let (good, hits) = last.growth(ctx);
        self.begin_in_child();
        let ended_elsewhere = self.good.load(Ordering::Relaxed) - self.seen.load(Ordering::Relaxed);
        if good == 0 && hits == 0 && ended_elsewhere <= self.unseen.load(Ordering::Relaxed) {
            return;
        }
        let all = self.good.fetch_add(good, Ordering::Relaxed) + good;
        let hits = self.hits.fetch_add(hits, Ordering::Relaxed) + hits;
        let unseen = all - self.seen.load(Ordering::Relaxed);
        let before = self.unseen.load(Ordering::Relaxed);
        // What is ahead in `seen` is of handshakes that have not ended: those count later.
        if unseen <= before
            || self.unseen.compare_exchange(before, unseen, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let known = self.unseen_resumed.load(Ordering::Relaxed);
        let resumed = hits.max(self.found.load(Ordering::Relaxed)) - self.seen_resumed.load(Ordering::Relaxed) - known;
        let resumed = resumed.clamp(0, unseen - before);
        self.unseen_resumed.fetch_add(resumed, Ordering::Relaxed);
        store.count(Counter::HandshakesResumed, resumed as u64);
        store.count(Counter::HandshakesFull, (unseen - before - resumed) as u64);
    }

    /// What the parent has not counted is the parent's to count.
    fn begin_in_child(&self) {
        let (process, me) = (self.process.load(Ordering::Relaxed), incarnation());
        if process == me || self.process.compare_exchange(process, me, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let sums = [&self.good, &self.hits, &self.found];
        let counted = [&self.seen, &self.seen_resumed, &self.unseen, &self.unseen_resumed];
        for number in sums.into_iter().chain(counted) {
            number.store(0, Ordering::Relaxed);
        }
    }
}
