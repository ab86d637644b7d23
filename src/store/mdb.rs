//! What LMDB's source says and its header does not: how its files and its environment are laid out (mdb.c, 0.9.24, on a
//! 64-bit machine). `pages` is the data file, read by `check` without LMDB.

use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use libc::c_int;
use lmdb_sys as ffi;

use crate::sys::mutex::{Apart, SharedMutex};
use crate::sys::shared_page::Shareable;

pub(super) mod pages;

/// The one unnamed tree (MAIN_DBI).
pub(super) const TREE: ffi::MDB_dbi = 1;

/// How lock.mdb begins (MDB_txninfo). The second reader slot and the further ones follow.
#[repr(C)]
pub(super) struct LockHead {
    pub(super) table: ReaderTable,
    pub(super) writer: Apart,
}

// SAFETY: atomics, for which any bytes do, and mutexes that pthread alone changes.
unsafe impl Shareable for LockHead {}

/// MDB_txbody.
#[repr(C, align(64))]
pub(super) struct ReaderTable {
    pub(super) magic: AtomicU32,
    pub(super) format: AtomicU32,
    pub(super) slots: SharedMutex,
    pub(super) last_transaction: AtomicUsize,
    /// Slots that were ever taken.
    pub(super) used: AtomicU32,
}

/// Bytes of lock.mdb for so many readers: a slot (MDB_reader) has a cache line, and the first lies in the head.
pub(super) fn lock_file_len(readers: u32) -> usize {
    const READER: usize = 64;
    size_of::<LockHead>() + readers as usize * READER
}

/// The descriptors with which an MDB_env begins: those of the data, the lock and, without a writable map, the meta file; -1
/// where there is none. LMDB tells the first only, `data`: where another number stands, the layout is a different one.
///
/// # Safety
/// `env` is an open environment.
pub(super) unsafe fn descriptors(env: *mut ffi::MDB_env, data: c_int) -> [c_int; 3] {
    // SAFETY: `env` points to an MDB_env, which is larger than three numbers and aligned to a pointer.
    let first = unsafe { *env.cast::<[c_int; 3]>() };
    if first[0] == data {
        first
    } else {
        [data, -1, -1]
    }
}

/// How a page begins (MDB_page).
#[repr(C)]
struct PageHead {
    number: usize,
    _pad: u16,
    flags: u16,
    pages: u32,
}

const _: () = assert!(size_of::<PageHead>() == pages::HEADER);

/// Where the map begins, told by a value that lies in a page of it: a page begins with its number.
///
/// # Safety
/// The value is one that LMDB has returned in a transaction that has not changed since, and lies behind its key.
pub(super) unsafe fn map_start(value: &[u8], page: usize) -> Option<*mut u8> {
    let at = value.as_ptr() as usize & !(page - 1);
    // SAFETY: a value behind its key is in the page where it begins, which is mapped whole and aligned to its size.
    let number = unsafe { *(at as *const usize) };
    number.checked_mul(page).and_then(|offset| at.checked_sub(offset)).map(|start| start as *mut u8)
}

/// Whether a value lies where values of ours do: behind its key, or alone in the page whose number stands there. To delete one
/// that is said to have more pages, LMDB would go over all of them, for minutes or until it ends the process.
///
/// # Safety
/// Both are as LMDB returned them for one entry, in a transaction that has not changed since.
pub(super) unsafe fn is_single_page(key: &ffi::MDB_val, value: &ffi::MDB_val) -> bool {
    let behind = key.mv_data.cast::<u8>().wrapping_add(key.mv_size);
    let data = value.mv_data.cast::<u8>();
    if data == behind {
        return true;
    }
    // A damaged page of another kind has keys alone.
    if data.is_null() {
        return false;
    }
    // SAFETY: the value is not behind its key, so LMDB has read the number of its page there.
    let number = unsafe { behind.cast::<usize>().read_unaligned() };
    let head = data.wrapping_sub(size_of::<PageHead>()).cast::<PageHead>();
    // SAFETY: LMDB has found the value's page in the map, and returns what follows its head.
    let head = unsafe { head.read_unaligned() };
    head.number == number && head.flags & pages::OVERFLOW != 0 && head.pages == 1
}
