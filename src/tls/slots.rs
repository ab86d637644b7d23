//! Trampolines: which cache a callback belongs to.
//!
//! OpenSSL calls the callbacks of the SSL_CTX given to SSL_new, and after an SNI switch there is no way from the `SSL *`
//! back to it. So each open cache has a set of functions of its own, which know their number.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, c_uchar, c_uint};

use super::openssl::{Conn, SessionMut, SessionRef, Trampolines};
use super::{ffi, hooks, idle, Binding};
use crate::log::{self, Topic};
use crate::sys::cancel::Uncancelled;
use crate::sys::errno;

/// Caches that can be open at once.
pub(crate) const SLOTS: usize = 64;

static BINDINGS: [AtomicPtr<Binding>; SLOTS] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];

/// The callbacks of slot `n`.
pub(super) fn trampolines(n: usize) -> &'static Trampolines {
    &TRAMPOLINES[n]
}

/// The slot whose `new` callback this is.
pub(super) fn slot_of(new: ffi::NewCb) -> Option<usize> {
    TRAMPOLINES.iter().position(|t| ptr::fn_addr_eq(t.new, new))
}

/// Takes a free slot for a binding; `None` when all are taken.
pub(super) fn claim(binding: *mut Binding) -> Option<usize> {
    BINDINGS
        .iter()
        .position(|slot| slot.compare_exchange(ptr::null_mut(), binding, Ordering::AcqRel, Ordering::Relaxed).is_ok())
}

/// Gives the slot back.
pub(super) fn release(n: usize) {
    BINDINGS[n].store(ptr::null_mut(), Ordering::Release);
}

/// The binding of slot `n`.
///
/// # Safety
/// The caller holds something that keeps the binding alive: an SSL or SSL_CTX that was attached (whose ex_data has a
/// reference until it is freed), or a reference of its own.
pub(super) unsafe fn binding<'a>(n: usize) -> Option<&'a Binding> {
    // SAFETY: the slot holds NULL or a live binding: it is emptied before that is freed, and the caller keeps it alive.
    unsafe { BINDINGS.get(n)?.load(Ordering::Acquire).as_ref() }
}

/// Leaves OpenSSL's error queue as it was, also when `f` panics.
pub(super) fn quiet<T>(f: impl FnOnce() -> T) -> T {
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            // SAFETY: no preconditions.
            unsafe { ffi::ERR_pop_to_mark() };
        }
    }
    // SAFETY: no preconditions. On an empty queue no mark is set, and popping "to the mark" empties the queue again.
    unsafe { ffi::ERR_set_mark() };
    let _mark = Mark;
    f()
}

/// Runs a callback so that the host notices nothing of what goes wrong in it: panics are caught, errno and the error
/// queue are as before.
pub(super) fn guarded<T>(n: usize, otherwise: T, f: impl FnOnce(&Binding) -> T) -> T {
    // SAFETY: OpenSSL calls for an SSL or SSL_CTX that was attached, whose ex_data keeps the binding until it is freed.
    let Some(binding) = (unsafe { binding(n) }) else { return otherwise };
    let before = errno::get();
    let uncancelled = Uncancelled::begin();
    let result = quiet(|| {
        let result = catch_unwind(AssertUnwindSafe(|| f(binding))).unwrap_or_else(|_| {
            binding.store.log.say(Topic::Bug, log::ERR, || "a fault was contained in a callback".to_owned());
            otherwise
        });
        idle::end_old();
        result
    });
    drop(uncancelled);
    errno::set(before);
    result
}

/// What the callbacks of every slot do. They are compiled once each: 64 copies would be half of the shared library.
mod common {
    use super::*;

    #[inline(never)]
    pub(super) fn new(n: usize, ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) {
        guarded(n, (), |binding| {
            // SAFETY: OpenSSL calls the new-session callback with a live SSL, in the thread that drives it.
            let conn = unsafe { Conn::new(ssl) };
            // SAFETY: and with the SSL's own session, which lives as long and whose fields nobody changes any more.
            if let Some(session) = NonNull::new(session).map(|session| unsafe { SessionRef::new(session) }) {
                hooks::new(binding, conn, session);
            }
        });
    }

    #[inline(never)]
    pub(super) fn get(n: usize, ssl: *mut ffi::SSL, id: &[u8]) -> *mut ffi::SSL_SESSION {
        guarded(n, ptr::null_mut(), |binding| {
            // SAFETY: OpenSSL calls the get-session callback with a live SSL that is processing a ClientHello, in the thread that
            // drives it.
            hooks::get(binding, unsafe { Conn::new(ssl) }, id)
        })
    }

    #[inline(never)]
    pub(super) fn remove(n: usize, session: *mut ffi::SSL_SESSION) {
        // SAFETY: no preconditions. Read before anything of ours can add to the queue.
        let cause = unsafe { ffi::ERR_peek_last_error() };
        guarded(n, (), |binding| {
            // SAFETY: OpenSSL calls the remove-session callback with a session that it has a reference to.
            if let Some(session) = NonNull::new(session).map(|session| unsafe { SessionRef::new(session) }) {
                hooks::remove(binding, session, cause);
            }
        });
    }

    #[inline(never)]
    pub(super) fn generate(n: usize, ssl: *mut ffi::SSL, out: &mut [u8]) -> bool {
        let made = guarded(n, false, |binding| {
            // SAFETY: OpenSSL calls the id generator with a live SSL, in the thread that drives it.
            let conn = unsafe { Conn::new(ssl) };
            // SAFETY: the SSL has either no session yet (TLS 1.2) or the one that a ticket is being made of (TLS 1.3), which no
            // other thread has before the ticket is sent.
            let session = conn.session().and_then(|session| NonNull::new(session.raw()));
            // SAFETY: as above.
            let session = session.map(|session| unsafe { SessionMut::new(session) });
            hooks::generate(binding, conn, session, out)
        });
        // As OpenSSL's own generator: without random bytes there is no handshake either.
        made || crate::sys::crypto::random(out)
    }
}

unsafe extern "C" fn new<const N: usize>(ssl: *mut ffi::SSL, session: *mut ffi::SSL_SESSION) -> c_int {
    common::new(N, ssl, session);
    // 0: no reference is kept.
    0
}

unsafe extern "C" fn get<const N: usize>(
    ssl: *mut ffi::SSL,
    id: *const c_uchar,
    len: c_int,
    copy: *mut c_int,
) -> *mut ffi::SSL_SESSION {
    // SAFETY: OpenSSL passes the address of an int. 0: the result is the caller's, without another reference.
    unsafe { *copy = 0 };
    // SAFETY: OpenSSL passes `len` bytes of session id.
    common::get(N, ssl, unsafe { std::slice::from_raw_parts(id, usize::try_from(len).unwrap_or(0)) })
}

unsafe extern "C" fn remove<const N: usize>(_ctx: *mut ffi::SSL_CTX, session: *mut ffi::SSL_SESSION) {
    common::remove(N, session);
}

unsafe extern "C" fn generate<const N: usize>(ssl: *mut ffi::SSL, id: *mut c_uchar, len: *mut c_uint) -> c_int {
    // SAFETY: OpenSSL passes the address of a length.
    let len = unsafe { *len } as usize;
    // SAFETY: OpenSSL passes a buffer of as many bytes, which is its own for the length of the call.
    c_int::from(common::generate(N, ssl, unsafe { std::slice::from_raw_parts_mut(id, len) }))
}

struct CallbackSet<const N: usize>;

impl<const N: usize> CallbackSet<N> {
    const TRAMPOLINES: Trampolines =
        Trampolines { new: new::<N>, get: get::<N>, remove: remove::<N>, generate: generate::<N> };
}

macro_rules! slots {
    ($($n:literal)*) => { [$(CallbackSet::<$n>::TRAMPOLINES),*] };
}

#[rustfmt::skip]
static TRAMPOLINES: [Trampolines; SLOTS] = slots![
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
];
