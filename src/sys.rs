//! libc and libcrypto behind safe faces: which process this is, what time it is, files, random bytes, AES-GCM.
//!
//! Everything here is small and has no notion of a session.

pub(crate) mod cancel;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod copy_on_write;
pub(crate) mod credentials;
pub(crate) mod crypto;
pub(crate) mod dir;
pub(crate) mod errno;
pub(crate) mod files;
pub(crate) mod fork_safe;
#[cfg(feature = "capi")]
mod memory;
pub(crate) mod mutex;
pub(crate) mod per_thread;
pub(crate) mod process;
pub(crate) mod shared_memory;
pub(crate) mod shared_page;
pub(crate) mod thread_specific;
