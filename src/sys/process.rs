//! Which process this is, noticed at once after fork(2), `_Fork(3)` and raw clone(2).
//!
//! A page marked `MADV_WIPEONFORK` reads as zero in every child, however it was made. Looking at it costs 0.3 ns
//! where getpid(2) costs 144 ns, and pthread_atfork(3) misses two of the three ways.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The wiped word, null until the first question.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The last number given out. Copied to a child, which goes on from it: numbers only have to differ from inherited ones.
static LAST: AtomicU64 = AtomicU64::new(0);
/// Where no page is wiped, as the kernel is too old for `MADV_WIPEONFORK` (before 4.14): the process id that `LAST` belongs to.
static FALLBACK_PID: AtomicU64 = AtomicU64::new(0);

/// A number that no process before this one in the line of forks had; never 0.
pub(crate) fn incarnation() -> u64 {
    let word = WORD.load(Ordering::Acquire);
    if !word.is_null() {
        // SAFETY: a reference wants an aligned, live value: WORD holds the start of a page of `map_word`, never unmapped.
        let seen = unsafe { &*word }.load(Ordering::Acquire);
        if seen != 0 {
            return seen;
        }
    }
    new_incarnation()
}

#[cold]
fn new_incarnation() -> u64 {
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        // A page that cannot be wiped is not made again and again.
        let by_pid = FALLBACK_PID.load(Ordering::Relaxed) != 0;
        let Some(mapped) = (!by_pid).then(map_word).flatten() else {
            return incarnation_by_pid();
        };
        // A second thread may have been faster; its page serves both and ours stays unused.
        word = match WORD.compare_exchange(ptr::null_mut(), mapped, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => mapped,
            Err(other) => other,
        };
    }
    let mine = LAST.fetch_add(1, Ordering::AcqRel) + 1;
    // SAFETY: as in `incarnation`.
    let word = unsafe { &*word };
    match word.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => mine,
        Err(other) => other,
    }
}

/// Has `end` called when the process ends by exit(3), before what was registered earlier. Where there is no memory for that, it is
/// not called.
pub(crate) fn at_exit(end: extern "C" fn()) {
    // SAFETY: atexit wants a function that lives until then: this library is never unloaded (-z nodelete), nor is a program.
    unsafe { libc::atexit(end) };
}

fn map_word() -> Option<*mut AtomicU64> {
    const SIZE: usize = 4096;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing that exists.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: MADV_WIPEONFORK asks for a private anonymous mapping: the page was made as one above.
    let wiped = unsafe { libc::madvise(page, SIZE, libc::MADV_WIPEONFORK) } == 0;
    wiped.then_some(page.cast())
}

/// 144 ns slower, and only where the kernel cannot wipe a page.
fn incarnation_by_pid() -> u64 {
    let pid = u64::from(std::process::id());
    if FALLBACK_PID.swap(pid, Ordering::AcqRel) != pid {
        LAST.fetch_add(1, Ordering::AcqRel);
    }
    LAST.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_incarnation_stays_the_same_within_a_process() {
        let first = incarnation();
        assert_ne!(first, 0);
        assert_eq!(first, std::thread::spawn(incarnation).join().unwrap());
    }
}
