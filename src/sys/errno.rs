//! errno of this thread, which a callback in somebody else's program must leave as it was.

/// Its value.
pub(crate) fn get() -> libc::c_int {
    // SAFETY: __errno_location has no requirements.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: a read wants a live integer: this thread's own, for as long as the thread lives.
    unsafe { *at }
}

/// Puts it back.
pub(crate) fn set(value: libc::c_int) {
    // SAFETY: __errno_location has no requirements.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as in `get`.
    unsafe { *at = value };
}
