//! What a C caller hears: the message of its thread, errno, and its log function.

use std::ffi::{c_char, c_int, c_void, CString};

use crate::log::Sink;
use crate::status::Error;
use crate::sys::thread_specific::ThreadSpecific;

static MESSAGE: ThreadSpecific<CString> = ThreadSpecific::new();

/// Keeps the message of a failed call for this thread.
pub(super) fn set_message(error: &Error) {
    let mut text = error.to_string();
    text.retain(|c| c != '\0');
    let text = CString::new(text).unwrap_or_default();
    // Where there is no place for it, the status has to do.
    let _ = MESSAGE.with(|message| *message = text);
}

/// This thread's message; valid until the next failure in this thread.
pub(super) fn message() -> *const c_char {
    MESSAGE.with(|message| message.as_ptr()).unwrap_or(c"".as_ptr())
}

/// A sink that calls a C function.
///
/// # Safety
/// Any thread may call `function` with `userdata` and a message, until another sink takes its place.
pub(super) unsafe fn sink(
    function: unsafe extern "C" fn(*mut c_void, c_int, *const c_char),
    userdata: *mut c_void,
) -> Sink {
    let userdata = Userdata(userdata);
    Box::new(move |level, line| {
        let userdata = &userdata;
        // SAFETY: the host's function takes its userdata, from any thread, and a string: `sink` has the caller vouch for it.
        unsafe { function(userdata.0, level, line.as_ptr()) };
    })
}

struct Userdata(*mut c_void);

// SAFETY: nothing here follows the pointer, and `sink` has the caller vouch for the host's function, from any thread.
unsafe impl Send for Userdata {}
// SAFETY: the same holds for threads that hand it over at the same time.
unsafe impl Sync for Userdata {}
