//! Robust process-shared mutexes: made, passed with a deadline, and looked at from outside.
//!
//! One in shared memory may be damaged by whoever can write there, and some kinds make pthread abort the process that locks
//! them. So its kind is looked at first.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libc::{c_int, pthread_mutex_t};

use super::clock;

#[cfg(target_env = "gnu")]
extern "C" {
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: libc::clockid_t,
        at: *const libc::timespec,
    ) -> libc::c_int;
}

/// Where in a mutex its kind and its holder lie, in integers: glibc's `__data.__kind` and `__data.__lock` on 64-bit
/// machines, musl's `_m_type` and `_m_lock`.
const KIND: usize = if cfg!(target_env = "musl") { 0 } else { 4 };
const HOLDER: usize = if cfg!(target_env = "musl") { 1 } else { 0 };
/// The kernel's mark on a robust lock whose holder died (linux/futex.h: FUTEX_OWNER_DIED).
const OWNER_DIED: c_int = 0x4000_0000;

/// Milliseconds after a wait in vain in which nobody of the process waits again.
const PAUSE: u64 = 20;

/// Tries before sleeping: what these locks guard takes about a microsecond, a sleep and a wake-up cost thirty.
pub(crate) const SPINS: u32 = 200;

/// A mutex in memory that processes share.
#[repr(transparent)]
pub(crate) struct SharedMutex(UnsafeCell<pthread_mutex_t>);

/// The same on cache lines of its own.
#[repr(C, align(64))]
pub(crate) struct Apart(pub(crate) SharedMutex);

/// What a mutex looks like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// A thread, or damage that reads like one.
    Somebody,
    /// Who locks it next is told that the holder died.
    Dead,
}

// SAFETY: pthread's functions and volatile reads are all that touch it, from any thread of any process.
unsafe impl Sync for SharedMutex {}

impl SharedMutex {
    /// One to `init`.
    const fn blank() -> SharedMutex {
        SharedMutex(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    /// Makes it a robust one for several processes.
    ///
    /// # Safety
    /// Nobody uses it yet, in this process or another.
    pub(crate) unsafe fn init(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: pthread_mutexattr_init wants memory for the attributes, which this function has.
        let mut code = unsafe { libc::pthread_mutexattr_init(attributes) };
        if code == 0 {
            // SAFETY: the setters want initialised attributes, and that succeeded.
            code |= unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
            // SAFETY: same.
            code |= unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
            // SAFETY: pthread_mutex_init wants memory that no thread uses as a mutex: `# Safety` asks the caller for that.
            code |= unsafe { libc::pthread_mutex_init(self.0.get(), attributes) };
            // SAFETY: pthread_mutexattr_destroy wants initialised attributes that are not used again.
            unsafe { libc::pthread_mutexattr_destroy(attributes) };
        }
        let made = (code == 0).then_some(());
        made.ok_or_else(|| io::Error::other("process-shared robust mutexes are not available"))
    }

    /// The kind of mutex that `init` makes here.
    pub(crate) fn usual_kind() -> io::Result<c_int> {
        let mutex = SharedMutex::blank();
        // SAFETY: nobody else knows this mutex.
        unsafe { mutex.init() }?;
        let kind = mutex.kind();
        // SAFETY: pthread_mutex_destroy wants an initialised mutex that nobody holds: it was never locked, and is not used again.
        unsafe { libc::pthread_mutex_destroy(mutex.0.get()) };
        Ok(kind)
    }

    /// What pthread is told about it. Written once, when it is made.
    pub(crate) fn kind(&self) -> c_int {
        self.integer(KIND)
    }

    /// Who has it.
    pub(crate) fn holder(&self) -> Holder {
        match self.integer(HOLDER) {
            0 => Holder::Nobody,
            word if word & OWNER_DIED != 0 => Holder::Dead,
            _ => Holder::Somebody,
        }
    }

    #[inline]
    fn integer(&self, at: usize) -> c_int {
        // SAFETY: `add` wants a place within the mutex: `at` is one of its first five integers, and it has ten.
        let integer = unsafe { self.0.get().cast::<c_int>().add(at) };
        // SAFETY: a read wants an aligned integer, which is there; volatile, because other processes write it.
        unsafe { integer.read_volatile() }
    }

    /// Whether nobody has it now, or within so long.
    pub(crate) fn is_free_within(&self, patience: Duration) -> bool {
        const NAP: Duration = Duration::from_micros(50);
        let is_free = || self.holder() != Holder::Somebody;
        let spin = |_| {
            std::hint::spin_loop();
            is_free()
        };
        if is_free() || (0..SPINS).any(spin) {
            return true;
        }
        let until = Instant::now() + patience;
        while Instant::now() < until {
            std::thread::sleep(NAP);
            if is_free() {
                return true;
            }
        }
        false
    }

    /// Tries to lock it: 0, EBUSY, EOWNERDEAD with the lock held, or another error number.
    pub(crate) fn try_lock(&self) -> c_int {
        // SAFETY: pthread_mutex_trylock wants an initialised mutex, and aborts on some kinds: who locks looks at `kind` first.
        unsafe { libc::pthread_mutex_trylock(self.0.get()) }
    }

    /// Waits for it until `at`, a moment of the monotonic clock: as `try_lock`, and ETIMEDOUT.
    #[cfg(target_env = "gnu")]
    pub(crate) fn lock_until(&self, at: libc::timespec) -> c_int {
        // SAFETY: as in `try_lock`; the time is this function's own, and glibc accepts CLOCK_MONOTONIC here.
        unsafe { pthread_mutex_clocklock(self.0.get(), libc::CLOCK_MONOTONIC, &at) }
    }

    /// musl has no clocklock: a wall clock that is set back during the wait makes it longer by as much, once.
    #[cfg(not(target_env = "gnu"))]
    pub(crate) fn lock_until(&self, at: libc::timespec) -> c_int {
        let left = at.tv_sec.saturating_sub((clock::ticks() / clock::SECOND) as libc::time_t).max(0);
        let wall = libc::timespec { tv_sec: clock::seconds() as libc::time_t + left, tv_nsec: at.tv_nsec };
        // SAFETY: as in `try_lock`; the time is this function's own.
        unsafe { libc::pthread_mutex_timedlock(self.0.get(), &wall) }
    }

    /// After EOWNERDEAD: what the mutex guards is whole again.
    pub(crate) fn make_consistent(&self) -> bool {
        // SAFETY: as in `try_lock`; a mutex whose holder has not died is left alone (EINVAL).
        unsafe { libc::pthread_mutex_consistent(self.0.get()) == 0 }
    }

    /// Unlocks it, if this thread has locked it.
    pub(crate) fn unlock(&self) {
        // SAFETY: as in `try_lock`; a robust mutex that another thread holds, or none, is left alone (EPERM).
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}

/// Whether to wait: after a wait in vain, for a while not. Each process finds out for itself.
pub(crate) struct Patience {
    lost_until: AtomicU64,
}

impl Patience {
    pub(crate) const fn new() -> Patience {
        Patience { lost_until: AtomicU64::new(0) }
    }

    pub(crate) fn is_lost(&self) -> bool {
        clock::ticks() < self.lost_until.load(Ordering::Relaxed)
    }

    /// A wait was in vain. A holder that lost its processor has it again within some time slices: puts that come while nobody waits
    /// are lost, a third as many with this pause as with one of a second.
    pub(crate) fn lose(&self) {
        self.lost_until.store(clock::ticks() + PAUSE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutex_shows_whether_its_holder_lives_and_only_the_holder_unlocks_it() {
        // It stays in its box: pthread keeps robust mutexes that are held in a list.
        let made = Box::new(SharedMutex::blank());
        let mutex = &*made;
        // SAFETY: nobody else knows it yet.
        unsafe { mutex.init() }.unwrap();
        assert_eq!(mutex.kind(), SharedMutex::usual_kind().unwrap());
        assert_eq!(mutex.holder(), Holder::Nobody);
        assert_eq!(mutex.try_lock(), 0);
        assert_eq!(mutex.holder(), Holder::Somebody);
        std::thread::scope(|scope| scope.spawn(|| mutex.unlock()).join()).unwrap();
        assert_eq!(mutex.holder(), Holder::Somebody);
        mutex.unlock();
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(mutex.try_lock(), 0)).join()).unwrap();
        assert_eq!(mutex.holder(), Holder::Dead);
        assert_eq!(mutex.try_lock(), libc::EOWNERDEAD);
        assert!(mutex.make_consistent());
        mutex.unlock();
        assert_eq!(mutex.holder(), Holder::Nobody);
    }
}
