//! errno of this thread, which a callback in somebody else's program must leave as it was.

/// Its value.
pub(crate) fn get() -> libc::c_int {
    // SAFETY: no preconditions; the address is this thread's own and always valid.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *at }
}

/// Puts it back.
pub(crate) fn set(value: libc::c_int) {
    // SAFETY: no preconditions; the address is this thread's own and always valid.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *at = value };
}
