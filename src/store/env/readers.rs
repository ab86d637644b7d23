//! An environment seen from outside: whose reader slots are taken, and what lies at the end of the tree.

use std::ffi::CStr;

use lmdb_sys as ffi;

use super::txn::Cursor;
use super::{check, Env, Fault, Txn};

/// A reader slot that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReaderSlot {
    pub(crate) pid: i32,
    /// The transaction whose snapshot it holds; `None` between two lookups.
    pub(crate) snapshot: Option<u64>,
}

impl Env {
    /// Whether the lock file could not be opened for writing: LMDB then sees no reader slot, its own no more than others'.
    pub(crate) fn is_without_locks(&self) -> bool {
        self.locks.is_none()
    }

    /// The reader slots that are taken, by the living and the dead.
    pub(crate) fn slots(&self) -> Result<Vec<ReaderSlot>, Fault> {
        let mut lines: Vec<String> = Vec::new();
        let context = std::ptr::from_mut(&mut lines).cast();
        // SAFETY: mdb_reader_list wants an open environment, and calls `keep_line` with the context that it wants.
        let code = unsafe { ffi::mdb_reader_list(self.raw, Some(keep_line), context) };
        if code < 0 {
            check(code)?;
        }
        Ok(lines.iter().filter_map(|line| slot(line)).collect())
    }

    /// The last transaction that was committed.
    pub(crate) fn last_transaction(&self) -> u64 {
        self.info().me_last_txnid as u64
    }
}

impl Txn {
    /// Calls `f` with the last key and its value; `None` in an empty tree.
    pub(crate) fn last<T>(&mut self, f: impl FnOnce(&[u8], &[u8]) -> T) -> Result<Option<T>, Fault> {
        let mut cursor = Cursor::open(self)?;
        Ok(cursor.seek(ffi::MDB_LAST, &[])?.map(|(key, value)| f(key, value)))
    }
}

/// A line as mdb_reader_list prints it (mdb.c): process, thread, and the transaction or a dash.
fn slot(line: &str) -> Option<ReaderSlot> {
    let mut words = line.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let _thread = words.next()?;
    Some(ReaderSlot { pid, snapshot: words.next()?.parse().ok() })
}

unsafe extern "C" fn keep_line(line: *const libc::c_char, context: *mut libc::c_void) -> libc::c_int {
    // SAFETY: a CStr wants a NUL-terminated text: LMDB passes a line that is one and lives until this returns.
    let line = unsafe { CStr::from_ptr(line) };
    // SAFETY: a `&mut` wants a live Vec that nobody else refers to: `slots` passes its own, and waits for LMDB meanwhile.
    let lines = unsafe { &mut *context.cast::<Vec<String>>() };
    lines.push(line.to_string_lossy().into_owned());
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_reader_list_are_understood_and_its_headings_are_none() {
        assert_eq!(slot("      4711 7f8b 12\n"), Some(ReaderSlot { pid: 4711, snapshot: Some(12) }));
        assert_eq!(slot("      4711 7f8b -\n"), Some(ReaderSlot { pid: 4711, snapshot: None }));
        assert_eq!(slot("    pid     thread     txnid\n"), None);
        assert_eq!(slot("(no active readers)\n"), None);
    }
}
