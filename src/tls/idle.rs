//! What a server with an SSL_CTX for each connection keeps between two of them: the cache that its last SSL_CTX has left. Without
//! it every connection would open the store anew.
//!
//! Only a cache that comes and goes is kept: one that ended with an SSL_CTX, and was opened again within the time for which it is
//! then kept. What an application closes for good, it closes at once. There is no thread that looks at the time: what was kept for
//! too long ends with the next call into the library, whatever that is.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use super::Binding;
use crate::sys::fork_safe::Shelf;
use crate::sys::{clock, process};

/// Caches that are kept at most, each with three descriptors and the map of its store. A server whose hosts have namespaces of their
/// own has several.
const MOST: usize = 8;
/// For so long, in milliseconds: an open every two seconds costs nobody anything.
const WHILE: u64 = 2 * clock::SECOND;

static IDLE: Shelf<Idle, MOST> = Shelf::new();
/// How many lie there, so that a handshake reads one word.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Names of caches that have ended, and when.
static ENDED: [(AtomicU64, AtomicU64); MOST] = [const { (AtomicU64::new(0), AtomicU64::new(0)) }; MOST];

/// Whether `end_at_exit` is.
static REGISTERED: AtomicBool = AtomicBool::new(false);

struct Idle {
    binding: Arc<Binding>,
    until: u64,
}

/// Takes the cache that an SSL_CTX had until it was freed: keeps it if nobody else has it and it comes and goes.
pub(super) fn leave(binding: Arc<Binding>) {
    end_old();
    // A host that hears messages may be about to unload its function.
    if Arc::strong_count(&binding) > 1 || binding.store.log.is_heard() {
        return;
    }
    let now = clock::ticks();
    if !binding.comes_and_goes {
        let oldest = ENDED.iter().min_by_key(|(_, at)| at.load(Ordering::Relaxed));
        if let Some((name, at)) = oldest {
            // Two threads may mix up two entries: then one cache is opened once more than need be.
            name.store(binding.name(), Ordering::Relaxed);
            at.store(now, Ordering::Relaxed);
        }
        return;
    }
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        process::at_exit(end_at_exit);
    }
    let more = IDLE.put(Idle { binding, until: now + WHILE });
    COUNT.store(IDLE.len(), Ordering::Relaxed);
    drop(more);
}

/// Whether a cache of that name has ended a moment ago.
pub(super) fn has_just_ended(name: u64) -> bool {
    let now = clock::ticks();
    let is_it = |(ended, at): &(AtomicU64, AtomicU64)| {
        ended.load(Ordering::Relaxed) == name && now.saturating_sub(at.load(Ordering::Relaxed)) < WHILE
    };
    ENDED.iter().any(is_it)
}

/// Takes off what is in use again, what is of a directory that was replaced by another, and what was kept for too long.
pub(super) fn take_back(binding: &Arc<Binding>) {
    let is_outdated = |store: &crate::store::Store| {
        store.path() == binding.store.path() && !std::ptr::eq(store, Arc::as_ptr(&binding.store))
    };
    end(|kept| Arc::ptr_eq(&kept.binding, binding) || is_outdated(&kept.binding.store));
}

/// Ends what was kept for too long.
#[inline]
pub(super) fn end_old() {
    if COUNT.load(Ordering::Relaxed) > 0 {
        end(|_| false);
    }
}

/// Ends all: it stands in the way of something. True when there was something.
pub(crate) fn end_all() -> bool {
    end(|_| true)
}

fn end(mut is_one: impl FnMut(&Idle) -> bool) -> bool {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let now = clock::ticks();
    // They end behind the lock: the end of a store takes its time, and may ask for others.
    let ended = IDLE.take(|kept| kept.until <= now || is_one(kept));
    COUNT.store(IDLE.len(), Ordering::Relaxed);
    ended.iter().any(Option::is_some)
}

/// A host that has freed everything finds nothing of ours in its leak checker.
extern "C" fn end_at_exit() {
    let _ = catch_unwind(end_all);
}
