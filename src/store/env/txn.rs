//! A transaction, and what is done in one: look up, put, delete, walk from either end.

use std::cmp::Ordering;
use std::ptr;

use lmdb_sys as ffi;

use super::super::id::Key;
use super::super::mdb::{is_single_page, pages::PAGE_MAX, TREE};
use super::fault::{check, Fault};

/// A transaction. No `Drop`: ending one is a decision.
pub(crate) struct Txn {
    pub(super) raw: *mut ffi::MDB_txn,
}

// SAFETY: with NOTLS, a reading transaction that is used by one thread at a time is bound to none (lmdb.h, mdb_env_open); a
// writing one stays in the call that began it.
unsafe impl Send for Txn {}

/// To be filled in.
pub(super) const NO_STAT: ffi::MDB_stat = ffi::MDB_stat {
    ms_psize: 0,
    ms_depth: 0,
    ms_branch_pages: 0,
    ms_leaf_pages: 0,
    ms_overflow_pages: 0,
    ms_entries: 0,
};

fn as_val(bytes: &[u8]) -> ffi::MDB_val {
    ffi::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr() as *mut libc::c_void }
}

impl Txn {
    pub(super) fn commit(self) -> Result<(), Fault> {
        // SAFETY: mdb_txn_commit wants a live transaction and frees it: a Txn is live, and this one ends here.
        check(unsafe { ffi::mdb_txn_commit(self.raw) })
    }

    pub(super) fn abort(self) {
        // SAFETY: mdb_txn_abort wants a live transaction and frees it: a Txn is live, and this one ends here.
        unsafe { ffi::mdb_txn_abort(self.raw) };
    }

    /// The value under `key`, where it lies in the map.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        let mut key = as_val(key);
        let mut value = ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() };
        // SAFETY: mdb_get wants a live transaction, which a Txn is, and a key that is not written while it reads it.
        match unsafe { ffi::mdb_get(self.raw, TREE, &mut key, &mut value) } {
            // No value of ours fills a page: LMDB has read this length from a page that is damaged.
            0 if value.mv_size > PAGE_MAX => Err(Fault::Damaged(ffi::MDB_CORRUPTED)),
            // SAFETY: LMDB's value stands until the transaction ends or writes, which needs the `&mut self` that the result borrows.
            0 => Ok(Some(unsafe { bytes_of(&value) })),
            ffi::MDB_NOTFOUND => Ok(None),
            code => Err(Fault::from_code(code)),
        }
    }

    /// Entries in the tree.
    pub(crate) fn entries(&mut self) -> Result<usize, Fault> {
        self.stat(TREE).map(|stat| stat.ms_entries)
    }

    /// Pages that hold the tree.
    pub(crate) fn used_pages(&mut self) -> Result<usize, Fault> {
        let stat = self.stat(TREE)?;
        Ok(stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages)
    }

    fn stat(&mut self, tree: ffi::MDB_dbi) -> Result<ffi::MDB_stat, Fault> {
        let mut stat = NO_STAT;
        // SAFETY: mdb_stat wants a live transaction and a tree that is known in it: `Env::begin` sees to that.
        check(unsafe { ffi::mdb_stat(self.raw, tree, &mut stat) })?;
        Ok(stat)
    }

    /// Walks from the first key at or after `from` until `f` says stop.
    pub(crate) fn walk(&mut self, from: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fault> {
        let on = |go_on| if go_on { Next::Skip } else { Next::Stop };
        Cursor::open(self)?.pass(Pass::Forward(from), |key, value| on(f(key, value)))
    }

    /// Walks from the last key backwards until `f` says stop.
    pub(crate) fn walk_back(&mut self, mut f: impl FnMut(&[u8]) -> bool) -> Result<(), Fault> {
        let on = |go_on| if go_on { Next::Skip } else { Next::Stop };
        Cursor::open(self)?.pass(Pass::Back(ffi::MDB_PREV), |key, _| on(f(key)))
    }
}

/// In which order a cursor goes through the tree.
enum Pass<'k> {
    /// From the first key at or after this one.
    Forward(&'k [u8]),
    /// From the last key: to the one before it, or to the last again when each is deleted.
    Back(ffi::MDB_cursor_op),
}

/// A key and its value, where they lie in the map.
type Entry<'a> = (&'a [u8], &'a [u8]);

pub(super) struct Cursor<'t> {
    raw: *mut ffi::MDB_cursor,
    _txn: &'t mut Txn,
}

impl<'t> Cursor<'t> {
    pub(super) fn open(txn: &'t mut Txn) -> Result<Cursor<'t>, Fault> {
        let mut raw = ptr::null_mut();
        // SAFETY: mdb_cursor_open wants a transaction that lives as long as the cursor, which borrows it.
        check(unsafe { ffi::mdb_cursor_open(txn.raw, TREE, &mut raw) })?;
        Ok(Cursor { raw, _txn: txn })
    }

    pub(super) fn seek(&mut self, op: ffi::MDB_cursor_op, key: &[u8]) -> Result<Option<Entry<'_>>, Fault> {
        let mut key = as_val(key);
        let mut value = ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() };
        // SAFETY: mdb_cursor_get wants a live cursor, which a Cursor is. It reads the key, and points both at the map.
        match unsafe { ffi::mdb_cursor_get(self.raw, &mut key, &mut value, op) } {
            // SAFETY: LMDB has just returned both for one entry, and nothing has changed since.
            0 if !unsafe { is_single_page(&key, &value) } => Err(Fault::Damaged(ffi::MDB_CORRUPTED)),
            0 => {
                // SAFETY: LMDB's key stands until the transaction writes, which needs the `&mut self` that the result borrows.
                let key = unsafe { bytes_of(&key) };
                // SAFETY: LMDB's value stands as long as its key does.
                let value = unsafe { bytes_of(&value) };
                Ok(Some((key, value)))
            }
            ffi::MDB_NOTFOUND => Ok(None),
            code => Err(Fault::from_code(code)),
        }
    }

    /// Lets `f` say what becomes of each entry. In a damaged tree a pass may lead in a circle, which LMDB does not notice.
    fn pass(&mut self, pass: Pass<'_>, mut f: impl FnMut(&[u8], &[u8]) -> Next) -> Result<(), Fault> {
        let damaged = Fault::Damaged(ffi::MDB_CORRUPTED);
        // After a delete the cursor stands on what followed, and NEXT returns that.
        let (mut op, step, from, order) = match pass {
            Pass::Forward(from) => (ffi::MDB_SET_RANGE, ffi::MDB_NEXT, from, Ordering::Greater),
            Pass::Back(step) => (ffi::MDB_LAST, step, &[][..], Ordering::Less),
        };
        let mut last: Option<Key> = None;
        while let Some((key, value)) = self.seek(op, from)? {
            if last.is_some_and(|last| key.cmp(last.bytes()) != order) {
                return Err(damaged);
            }
            last = Some(Key::read(key).ok_or(damaged)?);
            match f(key, value) {
                Next::Delete => self.delete()?,
                Next::Skip => {}
                Next::Stop => break,
            }
            op = step;
        }
        Ok(())
    }

    fn delete(&mut self) -> Result<(), Fault> {
        // SAFETY: mdb_cursor_del wants a live cursor. One that stands on no entry, or only reads, is an error.
        check(unsafe { ffi::mdb_cursor_del(self.raw, 0) })
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        // SAFETY: mdb_cursor_close wants a cursor whose transaction has not ended: it borrows it, and goes now.
        unsafe { ffi::mdb_cursor_close(self.raw) };
    }
}

/// # Safety
/// The value must come from LMDB, and its transaction must outlive the result unchanged.
unsafe fn bytes_of<'a>(value: &ffi::MDB_val) -> &'a [u8] {
    if value.mv_size == 0 {
        return &[];
    }
    // SAFETY: LMDB's pointer leads to so many bytes in its map, which the caller keeps from changing for as long as 'a.
    unsafe { std::slice::from_raw_parts(value.mv_data.cast(), value.mv_size) }
}

/// A write transaction in progress.
pub(crate) struct Write<'t> {
    txn: &'t mut Txn,
}

/// What becomes of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Delete it and look at the next.
    Delete,
    /// Leave it and look at the next.
    Skip,
    /// Leave it and stop.
    Stop,
}

impl<'t> Write<'t> {
    pub(super) fn new(txn: &'t mut Txn) -> Write<'t> {
        Write { txn }
    }

    /// For reading within.
    pub(crate) fn txn(&mut self) -> &mut Txn {
        self.txn
    }

    /// Puts anywhere, over what is there.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.put_unless_there(key, value, 0).map(drop)
    }

    /// Puts what is not there; false, with nothing put, when the key is.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
        self.put_unless_there(key, value, ffi::MDB_NOOVERWRITE)
    }

    /// Puts behind the last key; false, with nothing put, when the key is not greater.
    pub(crate) fn append(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Fault> {
        self.put_unless_there(key, value, ffi::MDB_APPEND)
    }

    fn put_unless_there(&mut self, key: &[u8], value: &[u8], flags: u32) -> Result<bool, Fault> {
        let mut key = as_val(key);
        let mut value = as_val(value);
        // SAFETY: mdb_put wants a live transaction, which a Txn is, and only reads what key and value point to.
        match unsafe { ffi::mdb_put(self.txn.raw, TREE, &mut key, &mut value, flags) } {
            ffi::MDB_KEYEXIST => Ok(false),
            code => check(code).map(|()| true),
        }
    }

    /// Deletes; false when it was not there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let mut cursor = Cursor::open(self.txn)?;
        let there = cursor.seek(ffi::MDB_SET_KEY, key)?.is_some();
        if there {
            cursor.delete()?;
        }
        Ok(there)
    }

    /// Goes from the first key at or after `from`, deleting what `f` says.
    pub(crate) fn sweep(&mut self, from: &[u8], f: impl FnMut(&[u8], &[u8]) -> Next) -> Result<(), Fault> {
        Cursor::open(self.txn)?.pass(Pass::Forward(from), f)
    }

    /// Goes from the last key backwards, deleting while `f` says so.
    pub(crate) fn sweep_back(&mut self, mut f: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fault> {
        let on = |delete| if delete { Next::Delete } else { Next::Stop };
        Cursor::open(self.txn)?.pass(Pass::Back(ffi::MDB_LAST), |key, value| on(f(key, value)))
    }
}
