//! Memory that does not run out in the middle of a handshake: Rust ends the process when an allocation fails, and that process
//! is a server that could have gone on.
//!
//! Behind the system's allocator stands a reserve. It is used when the system has nothing, which is when an address space or a
//! cgroup is full, and is whole again as soon as everything taken from it is given back: an operation needs a few hundred
//! bytes, opening a store some twenty kilobytes, and keeps little of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Enough for several threads with the largest records. Never touched as long as there is memory, so it costs none.
const RESERVE: usize = 512 * 1024;

struct Memory {
    bytes: Bytes,
    /// Bytes handed out from the start of the reserve (upper half), and how many pieces of them are in use (lower half).
    taken: AtomicU64,
}

#[repr(C, align(64))]
struct Bytes(UnsafeCell<[u8; RESERVE]>);

// SAFETY: no reference to the bytes is ever made; `taken` gives each of them to one holder at a time.
unsafe impl Sync for Bytes {}

#[global_allocator]
static MEMORY: Memory = Memory { bytes: Bytes(UnsafeCell::new([0; RESERVE])), taken: AtomicU64::new(0) };

impl Memory {
    fn start(&self) -> *mut u8 {
        self.bytes.0.get().cast()
    }

    fn is_reserve(&self, pointer: *mut u8) -> bool {
        (pointer as usize).wrapping_sub(self.start() as usize) < RESERVE
    }

    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        let mut seen = self.taken.load(Ordering::Acquire);
        loop {
            let used = (seen >> 32) as usize;
            // The start is aligned to 64: more is asked for by nobody, and refused.
            let at = used.next_multiple_of(layout.align());
            let Some(end) = at.checked_add(layout.size()).filter(|end| *end <= RESERVE && layout.align() <= 64) else {
                return ptr::null_mut();
            };
            let next = (end as u64) << 32 | ((seen & 0xFFFF_FFFF) + 1);
            match self.taken.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: `add` wants to stay within the reserve: `at` is at most `end`, which was compared with its size.
                Ok(_) => return unsafe { self.start().add(at) },
                Err(other) => seen = other,
            }
        }
    }

    #[cold]
    fn give_back(&self) {
        // The last piece gives back all the bytes.
        let last_goes = |seen: u64| Some(if seen & 0xFFFF_FFFF == 1 { 0 } else { seen - 1 });
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, last_goes);
    }
}

// SAFETY: every block comes from the system's allocator or is a piece of the reserve that nobody else has, of the size and
// alignment asked for; which of the two is told by its address. Nothing here unwinds.
unsafe impl GlobalAlloc for Memory {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: System.alloc wants a layout whose size is not 0, as we do of our caller.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            return self.take(layout);
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.is_reserve(pointer) {
            return self.give_back();
        }
        // SAFETY: System.dealloc wants a block of System's with its layout: the caller has no others outside of the reserve.
        unsafe { System.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: System.alloc_zeroed wants a layout whose size is not 0, as we do of our caller.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            return block;
        }
        let block = self.take(layout);
        if !block.is_null() {
            // SAFETY: write_bytes wants as many writable bytes: `take` gave a piece of that size.
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.is_reserve(pointer) {
            // SAFETY: System.realloc wants the same, and a size that is neither 0 nor too large for a layout, as we do of our caller.
            let moved = unsafe { System.realloc(pointer, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: a layout wants an alignment that is a power of two, which that of `layout` is, and such a size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: alloc wants a layout whose size is not 0, as we do of our caller.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: a copy wants two pieces of that length that do not overlap: these are two allocations, of `layout` and of `size`.
            unsafe { ptr::copy_nonoverlapping(pointer, new, layout.size().min(size)) };
            // SAFETY: dealloc wants a block of this allocator and its layout, as we do of our caller.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_the_reserve_stay_apart_and_all_come_back() {
        // Not the one that this very test allocates from.
        static OTHER: Memory = Memory { bytes: Bytes(UnsafeCell::new([0; RESERVE])), taken: AtomicU64::new(0) };
        let memory = &OTHER;
        let layout = Layout::from_size_align(1000, 16).unwrap();
        let pieces: Vec<_> = (0..100).map(|_| memory.take(layout)).collect();
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(*piece as usize % 16, 0);
            assert!(memory.is_reserve(*piece), "piece {n} lies outside of the reserve");
            assert!(
                n == 0 || *piece as usize >= pieces[n - 1] as usize + 1000,
                "pieces {n} and the one before overlap"
            );
        }
        assert!(memory.take(Layout::from_size_align(RESERVE, 1).unwrap()).is_null(), "more than there is was given");
        pieces.iter().for_each(|_| memory.give_back());
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0, "what was given back is lost");
        assert!(!memory.take(Layout::from_size_align(RESERVE, 1).unwrap()).is_null());
    }
}
