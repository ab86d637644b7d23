//! Thread cancellation is off while a thread of the host is inside the library: pthread_cancel(3) would unwind through
//! it, and a thread that ends inside a write transaction takes its process's environment with it.

extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, oldstate: *mut libc::c_int) -> libc::c_int;
}

/// PTHREAD_CANCEL_DISABLE of glibc and musl.
const DISABLE: libc::c_int = 1;

/// Cancellation is off until this is dropped.
pub(crate) struct Uncancelled {
    before: libc::c_int,
}

impl Uncancelled {
    pub(crate) fn begin() -> Uncancelled {
        let mut before = 0;
        // SAFETY: pthread_setcancelstate wants one of two states, and a place to write the old one to.
        unsafe { pthread_setcancelstate(DISABLE, &mut before) };
        Uncancelled { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ignored = 0;
        // SAFETY: as in `begin`; the state is what pthread gave there.
        unsafe { pthread_setcancelstate(self.before, &mut ignored) };
    }
}
