//! Forked processes that begin together and report numbers; all of them are gone afterwards.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No benchmark lets its processes run longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where processes wait for each other: all of them begin when the last one is ready.
pub struct Start<'a> {
    ready: &'a AtomicU64,
    all: u64,
}

impl Start<'_> {
    pub fn wait(&self) {
        let begin = Instant::now();
        self.ready.fetch_add(1, Ordering::AcqRel);
        while self.ready.load(Ordering::Acquire) < self.all {
            assert!(begin.elapsed() < PATIENCE, "the other processes do not get ready");
            std::thread::yield_now();
        }
    }
}

/// Runs `f(number, start)` in `n` forked processes and returns what each reports, at most `most` numbers.
pub fn run(n: usize, most: usize, f: impl Fn(usize, &Start) -> Vec<f64>) -> Vec<Vec<f64>> {
    let shared = Shared::new(n * (most + 1) + 1);
    let start = Start { ready: shared.cell(0), all: n as u64 };
    let mut children = Children(Vec::new());
    for number in 0..n {
        let at = 1 + number * (most + 1);
        let report = || {
            let numbers = f(number, &start);
            assert!(numbers.len() <= most, "{} numbers do not fit into {most}", numbers.len());
            for (i, value) in numbers.iter().enumerate() {
                shared.cell(at + 1 + i).store(value.to_bits(), Ordering::Relaxed);
            }
            shared.cell(at).store(numbers.len() as u64, Ordering::Release);
        };
        children.0.push(fork(report));
    }
    children.wait();
    (0..n)
        .map(|number| {
            let at = 1 + number * (most + 1);
            let len = shared.cell(at).load(Ordering::Acquire) as usize;
            (0..len).map(|i| f64::from_bits(shared.cell(at + 1 + i).load(Ordering::Relaxed))).collect()
        })
        .collect()
}

/// Runs `f` in one forked process and returns what it reports.
pub fn run_one(most: usize, f: impl Fn() -> Vec<f64>) -> Vec<f64> {
    run(1, most, |_, _| f()).remove(0)
}

fn fork(f: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the benchmarks have one thread, so the child may go on with everything it inherits.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            die_with_parent();
            let code = i32::from(catch_unwind(AssertUnwindSafe(f)).is_err());
            // SAFETY: ends the process here: the parent's destructors and buffers are the parent's.
            unsafe { libc::_exit(code) }
        }
        pid => pid,
    }
}

/// Keeps this process on one of the processors that it may use; `number` picks it. Where that is refused, the kernel goes
/// on choosing.
pub fn stay_on(number: usize) {
    // SAFETY: a set of processors is an array of integers; all zeros is the empty one.
    let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: writes at most `size` bytes, of this process, through a valid pointer.
    if unsafe { libc::sched_getaffinity(0, size, &mut all) } != 0 {
        return;
    }
    // SAFETY: the number is below that of the bits in the set.
    let has = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &all) };
    let mine: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(has).collect();
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a number that came from such a set.
    unsafe { libc::CPU_SET(mine[number % mine.len()], &mut one) };
    // SAFETY: reads `size` bytes through a valid pointer; the set is not empty.
    unsafe { libc::sched_setaffinity(0, size, &one) };
}

/// An interrupted benchmark leaves no process behind.
pub fn die_with_parent() {
    // SAFETY: sets an attribute of this process; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Processes that have not been reaped. Those left when a benchmark fails are killed.
struct Children(Vec<libc::pid_t>);

impl Children {
    fn wait(&mut self) {
        let begin = Instant::now();
        while let Some(pid) = self.0.last().copied() {
            let mut status = 0;
            // SAFETY: a child of ours that was not reaped; the status is written through a valid pointer.
            let reaped = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
            if reaped == pid {
                self.0.pop();
                assert_eq!(status, 0, "a forked process failed; its message stands above");
            } else {
                assert!(begin.elapsed() < PATIENCE, "a forked process does not end");
                // Looking costs a few microseconds of a processor that the children use.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for pid in self.0.drain(..) {
            // SAFETY: a child of ours that was not reaped, so the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // SAFETY: same; a NULL status is allowed.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        }
    }
}

/// Words that parent and children share.
struct Shared {
    start: *mut AtomicU64,
    len: usize,
}

impl Shared {
    fn new(len: usize) -> Shared {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len * 8, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Shared { start: start.cast(), len }
    }

    fn cell(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.len);
        // SAFETY: in bounds as asserted.
        let cell = unsafe { self.start.add(at) };
        // SAFETY: aligned, zero-initialised, and mapped as long as `self` lives.
        unsafe { &*cell }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.cast(), self.len * 8) };
    }
}
