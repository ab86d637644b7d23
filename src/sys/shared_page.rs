//! A value at the start of a file that processes share, mapped.

use std::fs::File;
use std::io;
use std::mem::{align_of, size_of};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use super::process;

/// What EAGAIN of mmap(2) means.
pub(crate) const LOCKED_MEMORY: &str =
    "the process locks all its memory (mlockall) and may lock no more (RLIMIT_MEMLOCK, \
     ulimit -l); raise the limit, or give a smaller capacity=";

/// What may lie where other processes write at any time.
///
/// # Safety
/// All bytes are a valid value, and it consists of atomics, or of what only the C library's functions for shared memory
/// change.
pub(crate) unsafe trait Shareable: Sync {}

/// A number that processes share, whatever the order in which they see others change.
#[repr(transparent)]
pub(crate) struct Word(AtomicU64);

impl Word {
    #[cfg(test)]
    pub(crate) const fn new(value: u64) -> Word {
        Word(AtomicU64::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.get() != 0
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets it, unless it is larger already.
    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// Sets it, and says what it was.
    pub(crate) fn swap(&self, value: u64) -> u64 {
        self.0.swap(value, Ordering::Relaxed)
    }
}

/// A mapped value, kept out of core dumps and unmapped in the end. A forked child may go on with it, but leaves it mapped:
/// a thread of the parent may have been anywhere in its life.
pub(crate) struct SharedPage<T: Shareable> {
    value: NonNull<T>,
    /// The incarnation that mapped it.
    process: u64,
}

impl<T: Shareable> SharedPage<T> {
    /// Maps the start of a file. One that is too short for the value is refused: what lies behind its end is a signal.
    pub(crate) fn map(file: &File) -> io::Result<SharedPage<T>> {
        SharedPage::map_as(file, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// The same for looking only: a write to the value is a fault.
    pub(crate) fn map_to_read(file: &File) -> io::Result<SharedPage<T>> {
        SharedPage::map_as(file, libc::PROT_READ)
    }

    fn map_as(file: &File, protection: libc::c_int) -> io::Result<SharedPage<T>> {
        const { assert!(align_of::<T>() <= 4096, "a mapping begins where a page does") };
        if file.metadata()?.len() < size_of::<T>() as u64 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: mmap without MAP_FIXED replaces no mapping: the address is the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        let Some(value) = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED) else {
            let error = io::Error::last_os_error();
            return Err(if error.raw_os_error() == Some(libc::EAGAIN) {
                io::Error::other(LOCKED_MEMORY)
            } else {
                error
            });
        };
        keep_out_of_core(start.cast(), size_of::<T>());
        Ok(SharedPage { value, process: process::incarnation() })
    }
}

impl<T: Shareable> Deref for SharedPage<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as_ref wants an aligned, valid value: for a `Shareable` any bytes are one, and they stay mapped until `drop`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Shareable> Drop for SharedPage<T> {
    fn drop(&mut self) {
        if self.process == process::incarnation() {
            // SAFETY: munmap wants nobody to look there any more: all references borrow the value that ends here.
            unsafe { libc::munmap(self.value.as_ptr().cast(), size_of::<T>()) };
        }
    }
}

// SAFETY: it gives `&T` alone, which another thread may have as T is Sync; any thread may unmap.
unsafe impl<T: Shareable> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for SharedPage<T> {}

/// Leaves a mapping out of core dumps. Failure is harmless: the kernel is older than 3.4.
pub(crate) fn keep_out_of_core(start: *mut u8, len: usize) {
    // SAFETY: MADV_DONTDUMP changes no content, and fails where nothing is mapped.
    unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTDUMP) };
}
