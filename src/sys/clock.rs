//! The clocks: wall time for expiry and for what processes tell each other, monotonic time for pauses of one process.

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime wants a timespec to write to; the clocks asked for here exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now
}

fn whole_micros(time: libc::timespec) -> u64 {
    time.tv_sec.max(0) as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Seconds since 1970 UTC, at the resolution of the timer tick (6 ns to read).
pub(crate) fn seconds() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE).tv_sec.max(0) as u64
}

/// Microseconds since 1970 UTC, at the resolution of the timer tick.
pub(crate) fn coarse_micros() -> u64 {
    whole_micros(read(libc::CLOCK_REALTIME_COARSE))
}

/// Milliseconds since 1970 UTC, at the resolution of the timer tick. The only clock that the processes of a store share; it may be
/// set, so whoever goes by it must do no harm then.
pub(crate) fn wall_millis() -> u64 {
    coarse_micros() / 1_000
}

/// Microseconds since 1970 UTC, exact: the order of ids depends on it.
pub(crate) fn micros() -> u64 {
    whole_micros(read(libc::CLOCK_REALTIME))
}

/// In milliseconds.
pub(crate) const SECOND: u64 = 1_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

/// Milliseconds of a clock that no administrator can set; never 0. For one process alone: in a time namespace it is another.
pub(crate) fn ticks() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC_COARSE);
    (now.tv_sec.max(0) as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000).max(1)
}

/// The monotonic moment `after` from now, in the form that pthread_mutex_clocklock wants.
pub(crate) fn deadline(after: std::time::Duration) -> libc::timespec {
    let mut at = read(libc::CLOCK_MONOTONIC);
    at.tv_sec += after.as_secs() as libc::time_t;
    at.tv_nsec += libc::c_long::from(after.subsec_nanos() as i32);
    if at.tv_nsec >= 1_000_000_000 {
        at.tv_sec += 1;
        at.tv_nsec -= 1_000_000_000;
    }
    at
}
