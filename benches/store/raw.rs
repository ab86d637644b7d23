//! The baseline: LMDB alone, doing the same bytes in one tree in time order. No seal, no checks, no eviction by itself.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{fs, ptr};

use lmdb_sys as ffi;

use crate::subject::{copy, micros, Id, Subject, Takes, LIFE};
use crate::support::measure::Random;

/// The one unnamed tree.
const TREE: ffi::MDB_dbi = 1;
/// What sesscache puts around a record: header, nonce and tag.
const OVERHEAD: usize = 56;

/// LMDB as fast as it gets: no sync, written through the map, one read transaction kept and renewed.
pub struct Raw {
    env: *mut ffi::MDB_env,
    reader: *mut ffi::MDB_txn,
    random: Random,
    padded: Vec<u8>,
    out: Vec<u8>,
    /// Delete the first record before each put.
    pub evict: bool,
}

fn check(code: libc::c_int, what: &str) {
    assert_eq!(code, 0, "LMDB: {what}");
}

fn val(bytes: &[u8]) -> ffi::MDB_val {
    ffi::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr() as *mut libc::c_void }
}

fn empty() -> ffi::MDB_val {
    ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() }
}

impl Raw {
    /// Opens the environment in `directory`, which must be there; its whole file gets blocks first.
    pub fn open(directory: &Path, capacity_mib: usize) -> Raw {
        let size = capacity_mib << 20;
        let path = CString::new(directory.as_os_str().as_bytes()).expect("a path without NUL");
        let mut env = ptr::null_mut();
        // SAFETY: writes the new environment through a valid pointer.
        check(unsafe { ffi::mdb_env_create(&mut env) }, "create");
        // SAFETY: the environment is created and not yet open.
        check(unsafe { ffi::mdb_env_set_maxreaders(env, 2048) }, "readers");
        // SAFETY: same.
        check(unsafe { ffi::mdb_env_set_mapsize(env, size) }, "size");
        let flags = ffi::MDB_WRITEMAP | ffi::MDB_NOSYNC | ffi::MDB_NOTLS | ffi::MDB_NORDAHEAD;
        // SAFETY: same; the path ends in NUL.
        check(unsafe { ffi::mdb_env_open(env, path.as_ptr(), flags, 0o600) }, "open");
        // After LMDB made the file: it takes an empty one for new, and one of zeros for damaged.
        let data = directory.join("data.mdb");
        let file = fs::OpenOptions::new().write(true).open(&data).expect("data.mdb");
        // SAFETY: an open descriptor; no memory is involved.
        let code = unsafe { libc::posix_fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), 0, size as libc::off_t) };
        assert_eq!(code, 0, "room for {}", data.display());
        let mut raw =
            Raw { env, reader: ptr::null_mut(), random: Random(7), padded: Vec::new(), out: Vec::new(), evict: false };
        raw.random.0 ^= micros() ^ u64::from(std::process::id()) << 32;
        raw.reader = raw.begin(ffi::MDB_RDONLY);
        // SAFETY: a live read transaction.
        unsafe { ffi::mdb_txn_reset(raw.reader) };
        raw
    }

    fn begin(&self, flags: libc::c_uint) -> *mut ffi::MDB_txn {
        let mut txn = ptr::null_mut();
        // SAFETY: the environment is open and of this process.
        check(unsafe { ffi::mdb_txn_begin(self.env, ptr::null_mut(), flags, &mut txn) }, "begin");
        let mut tree = 0;
        // SAFETY: a live transaction; NULL is the unnamed tree.
        check(unsafe { ffi::mdb_dbi_open(txn, ptr::null(), 0, &mut tree) }, "tree");
        txn
    }

    fn write(&self, f: impl FnOnce(*mut ffi::MDB_txn)) {
        let txn = self.begin(0);
        f(txn);
        // SAFETY: a live transaction, used up here.
        check(unsafe { ffi::mdb_txn_commit(txn) }, "commit");
    }

    fn find(txn: *mut ffi::MDB_txn, id: &Id, out: &mut Vec<u8>) -> Option<usize> {
        let (mut key, mut value) = (val(id), empty());
        // SAFETY: a live transaction; LMDB only reads the key.
        match unsafe { ffi::mdb_get(txn, TREE, &mut key, &mut value) } {
            0 => {
                // SAFETY: valid until the transaction ends or writes, which it does after this function.
                let found = unsafe { std::slice::from_raw_parts(value.mv_data.cast::<u8>(), value.mv_size) };
                Some(copy(out, found) - OVERHEAD)
            }
            ffi::MDB_NOTFOUND => None,
            code => panic!("LMDB: get: {code}"),
        }
    }

    fn delete_first(txn: *mut ffi::MDB_txn) {
        let mut cursor = ptr::null_mut();
        // SAFETY: a live transaction.
        check(unsafe { ffi::mdb_cursor_open(txn, TREE, &mut cursor) }, "cursor");
        let (mut key, mut value) = (empty(), empty());
        // SAFETY: a live cursor; both values are written.
        check(unsafe { ffi::mdb_cursor_get(cursor, &mut key, &mut value, ffi::MDB_FIRST) }, "first");
        // SAFETY: the cursor stands on an entry.
        check(unsafe { ffi::mdb_cursor_del(cursor, 0) }, "delete");
        // SAFETY: a live cursor, closed before its transaction ends.
        unsafe { ffi::mdb_cursor_close(cursor) };
    }
}

impl Subject for Raw {
    fn fresh(&mut self) -> Id {
        let mut id = [0; 32];
        self.random.fill(&mut id[8..]);
        id[..8].copy_from_slice(&(micros() + LIFE * 1_000_000).to_be_bytes());
        id
    }

    fn put(&mut self, id: &Id, value: &[u8]) {
        self.padded.resize(OVERHEAD + value.len(), 0);
        self.padded[OVERHEAD..].copy_from_slice(value);
        let (mut key, mut value) = (val(id), val(&self.padded));
        self.write(|txn| {
            if self.evict {
                Raw::delete_first(txn);
            }
            // SAFETY: a live write transaction; LMDB reads key and value.
            match unsafe { ffi::mdb_put(txn, TREE, &mut key, &mut value, ffi::MDB_APPEND) } {
                // Another process was faster, and its key is greater.
                ffi::MDB_KEYEXIST => {}
                code => return check(code, "append"),
            }
            // SAFETY: as above.
            check(unsafe { ffi::mdb_put(txn, TREE, &mut key, &mut value, 0) }, "put");
        });
    }

    fn get(&mut self, id: &Id) -> Option<usize> {
        // SAFETY: a reset read transaction of this process.
        check(unsafe { ffi::mdb_txn_renew(self.reader) }, "renew");
        let found = Raw::find(self.reader, id, &mut self.out);
        // SAFETY: a renewed read transaction.
        unsafe { ffi::mdb_txn_reset(self.reader) };
        found
    }
}

impl Takes for Raw {
    fn take(&mut self, id: &Id) -> Option<usize> {
        let mut out = std::mem::take(&mut self.out);
        let mut found = None;
        self.write(|txn| {
            found = Raw::find(txn, id, &mut out);
            if found.is_some() {
                // SAFETY: a live write transaction; LMDB reads the key.
                check(unsafe { ffi::mdb_del(txn, TREE, &mut val(id), ptr::null_mut()) }, "delete");
            }
        });
        self.out = out;
        found
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: a live transaction of this process, used up here.
        unsafe { ffi::mdb_txn_abort(self.reader) };
        // SAFETY: its only transaction is gone.
        unsafe { ffi::mdb_env_close(self.env) };
    }
}
