//! Where C becomes Rust: panics stop, pointers become references or an early return.

use std::ffi::{c_char, CStr};
use std::mem::MaybeUninit;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::{report, sesscache, sesscache_status};
use crate::cache::Cache;
use crate::options::Options;
use crate::status::{Error, Result, Status};
use crate::sys::cancel::Uncancelled;
use crate::sys::errno;

/// Runs the body of an exported function and turns its result into a status.
pub(super) fn border(f: impl FnOnce() -> Result<()>) -> sesscache_status {
    let before = errno::get();
    let _uncancelled = Uncancelled::begin();
    let status = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => sesscache_status::SESSCACHE_OK,
        Ok(Err(error)) => failed(error),
        Err(_) => failed(contained()),
    };
    errno::set(before);
    status
}

#[cold]
#[inline(never)]
fn contained() -> Error {
    Error::new(Status::Bug, "a fault inside sesscache was contained").remedy("please report it")
}

// Once for all functions, not inlined into each of them.
#[cold]
#[inline(never)]
fn failed(error: Error) -> sesscache_status {
    report::set_message(&error);
    error.status.into()
}

/// The cache of a handle.
///
/// # Safety
/// NULL, or from sesscache_open() and not closed before `'a` ends.
pub(super) unsafe fn borrow<'a>(handle: *mut sesscache) -> Result<&'a Cache> {
    // SAFETY: `as_ref` demands NULL or a live value that nobody changes: sesscache_open() boxed it, sesscache_close() has not
    // freed it, and a shared reference is all that is ever made of it.
    let handle = unsafe { handle.as_ref() };
    handle.map(|handle| &handle.0).ok_or_else(|| Error::invalid("cache is NULL").remedy("open it first"))
}

/// The pointer, unless it is NULL.
pub(super) fn checked<T>(pointer: *mut T, name: &str) -> Result<*mut T> {
    match pointer.is_null() {
        true => Err(Error::invalid(format!("{name} is NULL"))),
        false => Ok(pointer),
    }
}

/// An out-parameter.
///
/// # Safety
/// NULL, or aligned, initialized and nobody else's until `'a` ends.
pub(super) unsafe fn out<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: `as_mut` demands what this function demands.
    unsafe { pointer.as_mut() }.ok_or_else(|| Error::invalid(format!("{name} is NULL")))
}

/// A C string; `None` for NULL.
///
/// # Safety
/// NULL, or NUL-terminated and unchanged until `'a` ends.
pub(super) unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: `from_ptr` demands a NUL-terminated string that does not change, which it is unless NULL.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// Parsed options; NULL stands for the empty string.
///
/// # Safety
/// As for [`text`].
pub(super) unsafe fn options(pointer: *const c_char) -> Result<Options> {
    // SAFETY: `text` demands what this function demands.
    let text = unsafe { text(pointer) }.unwrap_or_default();
    std::str::from_utf8(text).map_err(|_| Error::invalid("the options are not UTF-8"))?.parse()
}

/// Bytes with a length; none for a length of 0, whatever the pointer.
///
/// # Safety
/// NULL, or `len` bytes that nobody changes until `'a` ends.
pub(super) unsafe fn bytes<'a>(pointer: *const u8, len: usize, name: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    checked(pointer.cast_mut(), name)?;
    possible(len, name)?;
    // SAFETY: `from_raw_parts` demands `len` readable bytes, at most isize::MAX, that do not change: the caller vouches for
    // the bytes, `possible` for the length.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Room to write bytes to, with [`fill`].
///
/// # Safety
/// NULL, or `len` bytes that are nobody else's until `'a` ends.
pub(super) unsafe fn room<'a>(pointer: *mut u8, len: usize, name: &str) -> Result<&'a mut [MaybeUninit<u8>]> {
    if len == 0 {
        return Ok(&mut []);
    }
    let pointer = checked(pointer, name)?.cast();
    possible(len, name)?;
    // SAFETY: `from_raw_parts_mut` demands `len` bytes, at most isize::MAX, that nobody else uses: the caller vouches for
    // the bytes, `possible` for the length, and MaybeUninit for what is in them.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

fn possible(len: usize, name: &str) -> Result<()> {
    match len > isize::MAX as usize {
        true => Err(Error::invalid(format!("{name} has an impossible length"))),
        false => Ok(()),
    }
}

/// Writes as many of these bytes as there is room for.
pub(super) fn fill(room: &mut [MaybeUninit<u8>], bytes: impl IntoIterator<Item = u8>) {
    for (to, byte) in room.iter_mut().zip(bytes) {
        to.write(byte);
    }
}
