//! Memory without a file that a process shares with the children it forks.

use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use super::process;
use super::shared_page::{keep_out_of_core, LOCKED_MEMORY};

/// Words that begin as zeros, on pages that exist once they are written. Kept out of core dumps. A forked child leaves them
/// mapped: a thread of the parent may have been anywhere in their life.
pub(crate) struct SharedMemory {
    start: NonNull<AtomicU64>,
    words: usize,
    /// The incarnation that mapped it.
    process: u64,
}

impl SharedMemory {
    /// Maps so many words.
    pub(crate) fn new(words: usize) -> io::Result<SharedMemory> {
        let bytes = words.checked_mul(8).ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: mmap without MAP_FIXED replaces no mapping: the address is the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0) };
        let Some(start) = NonNull::new(start.cast::<AtomicU64>()).filter(|_| start != libc::MAP_FAILED) else {
            let error = io::Error::last_os_error();
            let locked = error.raw_os_error() == Some(libc::EAGAIN);
            return Err(if locked { io::Error::other(LOCKED_MEMORY) } else { error });
        };
        keep_out_of_core(start.as_ptr().cast(), bytes);
        Ok(SharedMemory { start, words, process: process::incarnation() })
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: from_raw_parts wants as many aligned, valid values, which nobody changes but as atomics: a page begins the
        // mapping, any bytes are an AtomicU64, and it stays until `drop`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            // SAFETY: munmap wants nobody to look there any more: all references borrow the value that ends here.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
        }
    }
}

// SAFETY: it gives `&[AtomicU64]` alone, which any thread may have; any thread may unmap.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}
