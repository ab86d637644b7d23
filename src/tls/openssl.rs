//! SSL_CTX, SSL and SSL_SESSION as borrowed values. Code that gets a pointer from OpenSSL or the host vouches for it once;
//! everything done with it afterwards is safe.
//!
//! Most calls here demand one thing of their argument, that it is live, and `new` of its type says for how long it is.

mod conn;
mod ctx;
mod session;
mod trust;

use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use super::ffi;

pub(super) use self::conn::{Conn, Terms};
pub(super) use self::ctx::{Callbacks, Ctx, Trampolines};
pub(super) use self::session::{SessionMut, SessionRef};
pub(super) use self::trust::Unreadable;

/// An ex_data index, made at the first question. Two threads at once may make two; one of them stays unused.
pub(super) fn ex_index(at: &AtomicI32, class: c_int, dup: Option<ffi::ExDup>, free: Option<ffi::ExFree>) -> c_int {
    let known = at.load(Ordering::Acquire);
    if known >= 0 {
        return known;
    }
    // SAFETY: the functions have the types of crypto.h; NULL means no new function.
    let made = unsafe { ffi::new_ex_index(class, 0, ptr::null_mut(), ptr::null(), dup, free) };
    match at.compare_exchange(-1, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => other,
    }
}
