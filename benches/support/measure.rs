//! Clocks, and samples of what an operation costs.
//!
//! An operation of a microsecond is shorter than it takes to read the clock of CPU time, so a sample is the mean of a
//! batch. A subject and its baseline take turns, block by block: what else the machine does meets both.

/// Blocks in which a subject and its baseline take turns.
pub const TURNS: usize = 8;

fn read(clock: libc::clockid_t) -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec through a valid pointer.
    let code = unsafe { libc::clock_gettime(clock, &mut now) };
    assert_eq!(code, 0, "the clock {clock} can be read");
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

/// CPU time of this thread, in microseconds: user and system.
pub fn cpu() -> f64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of another process, all its threads, in microseconds.
pub fn cpu_of(pid: libc::pid_t) -> f64 {
    let mut clock = 0;
    // SAFETY: writes one clock id through a valid pointer.
    let code = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    assert_eq!(code, 0, "process {pid} is running");
    read(clock)
}

/// Wall time, in microseconds.
pub fn wall() -> f64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Microseconds per operation, one number per batch or per operation.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// Adds the cost of one of `n` operations that `f` does, in CPU time of this thread.
    pub fn batch(&mut self, n: usize, f: impl FnOnce()) {
        let start = cpu();
        f();
        self.0.push((cpu() - start) / n as f64);
    }

    /// The value that `percent` of the samples do not exceed.
    pub fn percentile(&self, percent: f64) -> f64 {
        assert!(!self.0.is_empty(), "a percentile needs samples");
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted[at.clamp(1, sorted.len()) - 1]
    }

    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub fn p99(&self) -> f64 {
        self.percentile(99.0)
    }

    pub fn max(&self) -> f64 {
        self.percentile(100.0)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}

/// Lets two subjects take turns. `f` is told whose turn it is and adds a block of samples.
pub fn in_turns(mut f: impl FnMut(usize, &mut Samples)) -> [Samples; 2] {
    let mut both = [Samples::default(), Samples::default()];
    for _ in 0..TURNS {
        for (who, samples) in both.iter_mut().enumerate() {
            f(who, samples);
        }
    }
    both
}

/// Steps of [`work`] that take `micros` on this machine when nothing interrupts.
pub fn calibrate(micros: f64) -> u64 {
    const STEPS: u64 = 2_000_000;
    let fastest = (0..5)
        .map(|_| {
            let start = cpu();
            work(STEPS);
            cpu() - start
        })
        .fold(f64::INFINITY, f64::min);
    (micros * STEPS as f64 / fastest) as u64
}

/// Keeps the processor busy: stands for what a server does between two lookups.
pub fn work(steps: u64) {
    let mut state = 1_u64;
    for _ in 0..steps {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_ne_bytes()[..chunk.len()]);
        }
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
