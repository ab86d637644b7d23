//! What a C caller hears: the message of its thread, errno, and its log function.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CString};

use crate::log::Sink;
use crate::status::Error;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::new(CString::default());
}

/// Keeps the detail of a failed call for this thread.
pub(super) fn set_message(error: Error) {
    let mut detail = error.detail.into_bytes();
    detail.retain(|byte| *byte != 0);
    let text = CString::new(detail).unwrap_or_default();
    // A thread that is ending has no message any more.
    let _ = MESSAGE.try_with(|message| message.replace(text));
}

/// This thread's message; valid until the next failure in this thread.
pub(super) fn message() -> *const c_char {
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// A sink that calls a C function.
pub(super) fn sink(function: unsafe extern "C" fn(*mut c_void, c_int, *const c_char), userdata: *mut c_void) -> Sink {
    let userdata = Userdata(userdata);
    Box::new(move |level, line| {
        let userdata = &userdata;
        // SAFETY: the host promised that the function may be called from any thread with this pointer.
        unsafe { function(userdata.0, level, line.as_ptr()) };
    })
}

struct Userdata(*mut c_void);

// SAFETY: only handed through; the host promised that any thread may do that.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}
