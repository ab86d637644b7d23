//! SSL_CTX.

use std::marker::PhantomData;
use std::ptr;

use libc::{c_int, c_long, c_void};

use super::SessionRef;
use crate::tls::ffi;

/// An SSL_CTX.
#[derive(Clone, Copy)]
pub(in crate::tls) struct Ctx<'a>(*mut ffi::SSL_CTX, PhantomData<&'a ()>);

/// The callbacks that are set on an SSL_CTX.
pub(in crate::tls) struct Trampolines {
    pub(in crate::tls) new: ffi::NewCb,
    pub(in crate::tls) get: ffi::GetCb,
    pub(in crate::tls) remove: ffi::RemoveCb,
    pub(in crate::tls) generate: ffi::GenerateCb,
}

/// The three callbacks of an SSL_CTX as it has them.
pub(in crate::tls) struct Callbacks {
    pub(in crate::tls) new: Option<ffi::NewCb>,
    pub(in crate::tls) get: Option<ffi::GetCb>,
    pub(in crate::tls) remove: Option<ffi::RemoveCb>,
}

impl<'a> Ctx<'a> {
    /// # Safety
    /// For as long as `'a`, `raw` is a live SSL_CTX that no other thread changes.
    pub(in crate::tls) unsafe fn new(raw: *mut ffi::SSL_CTX) -> Ctx<'a> {
        Ctx(raw, PhantomData)
    }

    pub(super) fn raw(self) -> *mut ffi::SSL_CTX {
        self.0
    }

    pub(in crate::tls) fn timeout(self) -> c_long {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_timeout(self.0) }
    }

    pub(in crate::tls) fn set_timeout(self, seconds: c_long) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_timeout(self.0, seconds) };
    }

    /// Bytes of early data that its connections accept.
    pub(in crate::tls) fn max_early_data(self) -> u32 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_max_early_data(self.0) }
    }

    pub(in crate::tls) fn set_max_early_data(self, bytes: u32) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_max_early_data(self.0, bytes) };
    }

    /// The session cache mode.
    pub(in crate::tls) fn cache_mode(self) -> c_long {
        // SAFETY: live, as `new` demands; this control reads the mode.
        unsafe { ffi::SSL_CTX_ctrl(self.0, ffi::SSL_CTRL_GET_SESS_CACHE_MODE, 0, ptr::null_mut()) }
    }

    pub(in crate::tls) fn set_cache_mode(self, mode: c_long) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_session_cache_mode(self.0, mode) };
    }

    /// Handshakes as a server that ended well, modulo 2^32. OpenSSL counts one in the SSL_CTX that its connection has at the end.
    pub(in crate::tls) fn good_handshakes(self) -> i32 {
        self.counter(ffi::SSL_CTRL_SESS_ACCEPT_GOOD)
    }

    /// Sessions found for handshakes, modulo 2^32. OpenSSL counts one in the SSL_CTX that was given to SSL_new(3).
    pub(in crate::tls) fn session_hits(self) -> i32 {
        self.counter(ffi::SSL_CTRL_SESS_HIT)
    }

    fn counter(self, which: c_int) -> i32 {
        // SAFETY: live, as `new` demands; these controls load a counter, which other threads may be changing.
        unsafe { ffi::SSL_CTX_ctrl(self.0, which, 0, ptr::null_mut()) as i32 }
    }

    pub(in crate::tls) fn options(self) -> u64 {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_options(self.0) }
    }

    pub(in crate::tls) fn set_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_options(self.0, bits) };
    }

    pub(in crate::tls) fn clear_options(self, bits: u64) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_clear_options(self.0, bits) };
    }

    pub(in crate::tls) fn callbacks(self) -> Callbacks {
        Callbacks {
            // SAFETY: live, as `new` demands.
            new: unsafe { ffi::SSL_CTX_sess_get_new_cb(self.0) },
            // SAFETY: live, as `new` demands.
            get: unsafe { ffi::SSL_CTX_sess_get_get_cb(self.0) },
            // SAFETY: live, as `new` demands.
            remove: unsafe { ffi::SSL_CTX_sess_get_remove_cb(self.0) },
        }
    }

    /// Whether it has all three of these.
    pub(in crate::tls) fn has_callbacks(self, ours: &Trampolines) -> bool {
        let Callbacks { new, get, remove } = self.callbacks();
        new.is_some_and(|new| ptr::fn_addr_eq(new, ours.new))
            && get.is_some_and(|get| ptr::fn_addr_eq(get, ours.get))
            && remove.is_some_and(|remove| ptr::fn_addr_eq(remove, ours.remove))
    }

    /// Whether it gives sessions of its connections to the new-session callback.
    pub(in crate::tls) fn caches_sessions(self) -> bool {
        self.cache_mode() & ffi::SSL_SESS_CACHE_SERVER != 0
    }

    /// Sets the three callbacks and the id generator. They live as long as the process (-z nodelete).
    pub(in crate::tls) fn set_callbacks(self, to: &Trampolines) {
        self.set(Callbacks { new: Some(to.new), get: Some(to.get), remove: Some(to.remove) });
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_generate_session_id(self.0, Some(to.generate)) };
    }

    /// Sets the callback for new sessions alone.
    pub(in crate::tls) fn set_new_callback(self, to: &Trampolines) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_new_cb(self.0, Some(to.new)) };
    }

    /// Whether it makes clients' connections and no others.
    pub(in crate::tls) fn is_for_clients_only(self) -> bool {
        // SAFETY: no preconditions.
        self.method() == unsafe { ffi::TLS_client_method() }.cast()
    }

    /// Removes those of the callbacks that are still these, and the id generator, which OpenSSL does not show.
    pub(in crate::tls) fn remove_callbacks(self, ours: &Trampolines) {
        let Callbacks { new, get, remove } = self.callbacks();
        self.set(Callbacks {
            new: new.filter(|new| !ptr::fn_addr_eq(*new, ours.new)),
            get: get.filter(|get| !ptr::fn_addr_eq(*get, ours.get)),
            remove: remove.filter(|remove| !ptr::fn_addr_eq(*remove, ours.remove)),
        });
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_set_generate_session_id(self.0, None) };
    }

    fn set(self, to: Callbacks) {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_new_cb(self.0, to.new) };
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_get_cb(self.0, to.get) };
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_sess_set_remove_cb(self.0, to.remove) };
    }

    /// Whether OpenSSL keeps sessions of its own beside the callbacks.
    pub(super) fn has_internal_cache(self) -> bool {
        self.cache_mode() & ffi::SSL_SESS_CACHE_NO_INTERNAL == 0
    }

    /// Takes the session out of OpenSSL's own cache; false when it was not there. Not from within a callback: OpenSSL may
    /// hold its lock there.
    pub(in crate::tls) fn forget(self, session: SessionRef<'_>) -> bool {
        // SAFETY: both live, as their `new` demand.
        self.has_internal_cache() && unsafe { ffi::SSL_CTX_remove_session(self.0, session.raw()) == 1 }
    }

    /// What lies under an index; NULL where nothing was put.
    pub(in crate::tls) fn ex_data(self, index: c_int) -> *mut c_void {
        // SAFETY: live, as `new` demands; an unknown index reads as NULL.
        unsafe { ffi::SSL_CTX_get_ex_data(self.0, index) }
    }

    /// False when OpenSSL has no memory for it.
    pub(in crate::tls) fn set_ex_data(self, index: c_int, value: *mut c_void) -> bool {
        // SAFETY: live, as `new` demands; the value goes to the index's free function only.
        unsafe { ffi::SSL_CTX_set_ex_data(self.0, index, value) == 1 }
    }

    /// The table of methods, which lies in the libssl that made it.
    pub(in crate::tls) fn method(self) -> *const c_void {
        // SAFETY: live, as `new` demands.
        unsafe { ffi::SSL_CTX_get_ssl_method(self.0) }.cast()
    }
}
