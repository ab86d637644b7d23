//! Where C becomes Rust: panics stop, pointers become references or an early return.

use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::report;
use super::sesscache_status as S;
use crate::status::{Error, Result, Status};
use crate::sys::cancel::Uncancelled;
use crate::sys::errno;

/// Runs the body of an exported function and turns its result into a status.
pub(super) fn border(f: impl FnOnce() -> Result<()>) -> S {
    let before = errno::get();
    let _uncancelled = Uncancelled::begin();
    let result = catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(Error::new(Status::Bug, "a fault inside sesscache was contained; please report it")));
    let status = match result {
        Ok(()) => S::SESSCACHE_OK,
        Err(error) => {
            let status = from(error.status);
            report::set_message(error);
            status
        }
    };
    errno::set(before);
    status
}

fn from(status: Status) -> S {
    match status {
        Status::Invalid => S::SESSCACHE_INVALID,
        Status::System => S::SESSCACHE_SYSTEM,
        Status::Format => S::SESSCACHE_FORMAT,
        Status::Full => S::SESSCACHE_FULL,
        Status::OpenSsl => S::SESSCACHE_OPENSSL,
        Status::Mismatch => S::SESSCACHE_MISMATCH,
        Status::Busy => S::SESSCACHE_BUSY,
        Status::Bug => S::SESSCACHE_BUG,
        Status::NotFound => S::SESSCACHE_NOT_FOUND,
    }
}

/// The pointer, unless it is NULL.
pub(super) fn checked<T>(pointer: *mut T, name: &str) -> Result<*mut T> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    Ok(pointer)
}

/// An out-parameter.
///
/// # Safety
/// NULL or valid for reads and writes during the call.
pub(super) unsafe fn out<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: by contract, and not NULL.
    Ok(unsafe { &mut *checked(pointer, name)? })
}

/// A C string; `None` for NULL.
///
/// # Safety
/// NULL or NUL-terminated, unchanged during the call.
pub(super) unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by contract.
    Some(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// Bytes with a length.
///
/// # Safety
/// NULL or `len` readable bytes, unchanged during the call.
pub(super) unsafe fn bytes<'a>(pointer: *const u8, len: usize, name: &str) -> Result<&'a [u8]> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{name} is NULL")));
    }
    if len > isize::MAX as usize {
        return Err(Error::invalid(format!("{name} has an impossible length")));
    }
    // SAFETY: by contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}
