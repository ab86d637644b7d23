//! Peers without a server: OpenSSL's own cache, which one process has to itself, and a GDBM file under flock(2).

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::RwLock;

use openssl_sys as ssl;

use crate::subject::{copy, Id, Subject, LIFE};
use crate::support::measure::Random;

#[repr(C)]
struct Lhash([u8; 0]);

extern "C" {
    fn SSL_CTX_sessions(ctx: *mut ssl::SSL_CTX) -> *mut Lhash;
    fn SSL_SESSION_new() -> *mut ssl::SSL_SESSION;
    fn SSL_SESSION_set1_id(session: *mut ssl::SSL_SESSION, id: *const u8, len: libc::c_uint) -> libc::c_int;
    fn SSL_SESSION_set_protocol_version(session: *mut ssl::SSL_SESSION, version: libc::c_int) -> libc::c_int;
    fn SSL_SESSION_set_timeout(session: *mut ssl::SSL_SESSION, seconds: libc::c_long) -> libc::c_long;
    fn OPENSSL_LH_retrieve(table: *mut Lhash, key: *const libc::c_void) -> *mut libc::c_void;
}

/// OpenSSL's internal cache: a hash table of live SSL_SESSIONs under a lock.
///
/// Putting is `SSL_CTX_add_session`. Looking up has no function of its own, so what libssl does inside a handshake is
/// done here with public ones: retrieve from the table under a read lock, and take a reference. The objects are made
/// beforehand; what sessions hold beside their ids is not there, as it is not touched by either.
pub struct Internal {
    ctx: *mut ssl::SSL_CTX,
    probe: *mut ssl::SSL_SESSION,
    lock: RwLock<()>,
    random: Random,
    /// Made by `prepare`, for the puts to come.
    ready: Vec<*mut ssl::SSL_SESSION>,
}

const TLS_1_2: libc::c_int = 0x0303;

fn session() -> *mut ssl::SSL_SESSION {
    // SAFETY: no preconditions.
    let session = unsafe { SSL_SESSION_new() };
    assert!(!session.is_null(), "a session");
    // SAFETY: a live session.
    unsafe { SSL_SESSION_set_protocol_version(session, TLS_1_2) };
    // SAFETY: same.
    unsafe { SSL_SESSION_set_timeout(session, LIFE as libc::c_long) };
    session
}

fn set_id(session: *mut ssl::SSL_SESSION, id: &Id) {
    // SAFETY: a live session; 32 bytes are read, which is the most an id has.
    let ok = unsafe { SSL_SESSION_set1_id(session, id.as_ptr(), 32) };
    assert_eq!(ok, 1, "an id of 32 bytes");
}

impl Internal {
    pub fn open() -> Internal {
        // SAFETY: no preconditions; the method table is static.
        let method = unsafe { ssl::TLS_server_method() };
        // SAFETY: a live method table.
        let ctx = unsafe { ssl::SSL_CTX_new(method) };
        assert!(!ctx.is_null(), "an SSL_CTX");
        // SAFETY: a live SSL_CTX; 0 is no limit.
        unsafe { ssl::SSL_CTX_sess_set_cache_size(ctx, 0) };
        Internal { ctx, probe: session(), lock: RwLock::new(()), random: Random(13), ready: Vec::new() }
    }

    /// Makes the sessions that the next puts, in this order, will store.
    pub fn prepare(&mut self, ids: &[Id]) {
        let made = ids.iter().rev().map(|id| {
            let session = session();
            set_id(session, id);
            session
        });
        self.ready.extend(made);
    }
}

impl Subject for Internal {
    fn fresh(&mut self) -> Id {
        let mut id = [0; 32];
        self.random.fill(&mut id);
        id
    }

    fn put(&mut self, _: &Id, _: &[u8]) {
        let session = self.ready.pop().expect("a session that was prepared");
        // SAFETY: both are live; the cache takes a reference of its own.
        let ok = unsafe { ssl::SSL_CTX_add_session(self.ctx, session) };
        assert_eq!(ok, 1, "the session is new to the cache");
        // SAFETY: gives up the reference of `session()`.
        unsafe { ssl::SSL_SESSION_free(session) };
    }

    fn get(&mut self, id: &Id) -> Option<usize> {
        set_id(self.probe, id);
        let held = self.lock.read().expect("the lock");
        // SAFETY: a live SSL_CTX.
        let table = unsafe { SSL_CTX_sessions(self.ctx) };
        // SAFETY: the table's own kind of entry as a key; nobody changes it meanwhile.
        let found: *mut ssl::SSL_SESSION = unsafe { OPENSSL_LH_retrieve(table, self.probe.cast()) }.cast();
        if found.is_null() {
            return None;
        }
        // SAFETY: a live session, found under the lock.
        unsafe { ssl::SSL_SESSION_up_ref(found) };
        drop(held);
        // SAFETY: gives up the reference taken above.
        unsafe { ssl::SSL_SESSION_free(found) };
        Some(0)
    }

    fn fill(&mut self, ids: &[Id], value: &[u8]) {
        self.prepare(ids);
        ids.iter().for_each(|id| self.put(id, value));
    }
}

impl Drop for Internal {
    fn drop(&mut self) {
        // SAFETY: made by `session()` and freed once.
        unsafe { ssl::SSL_SESSION_free(self.probe) };
        // SAFETY: made in `open` and freed once, with all it holds.
        unsafe { ssl::SSL_CTX_free(self.ctx) };
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Datum {
    data: *mut libc::c_char,
    len: libc::c_int,
}

const GDBM_READER: libc::c_int = 0;
const GDBM_WRCREAT: libc::c_int = 2;
/// The lock file is what is locked, as under Apache's mutex: GDBM's own lock does not wait.
const GDBM_NOLOCK: libc::c_int = 0x40;
const GDBM_REPLACE: libc::c_int = 1;

#[link(name = "gdbm")]
extern "C" {
    fn gdbm_open(
        path: *const libc::c_char,
        block: libc::c_int,
        flags: libc::c_int,
        mode: libc::c_int,
        fatal: *const libc::c_void,
    ) -> *mut libc::c_void;
    fn gdbm_store(file: *mut libc::c_void, key: Datum, value: Datum, flag: libc::c_int) -> libc::c_int;
    fn gdbm_fetch(file: *mut libc::c_void, key: Datum) -> Datum;
    fn gdbm_close(file: *mut libc::c_void) -> libc::c_int;
}

/// A GDBM file that is locked, opened, used and closed in every operation: how processes share a DBM file.
pub struct Gdbm {
    path: PathBuf,
    lock: File,
    random: Random,
    out: Vec<u8>,
}

fn datum(bytes: &[u8]) -> Datum {
    Datum { data: bytes.as_ptr() as *mut libc::c_char, len: bytes.len() as libc::c_int }
}

impl Gdbm {
    pub fn open(directory: &Path) -> Gdbm {
        let lock = File::create(directory.join("lock")).expect("a lock file");
        Gdbm { path: directory.join("sessions.gdbm"), lock, random: Random(17), out: Vec::new() }
    }

    fn with<T>(&self, write: bool, f: impl FnOnce(*mut libc::c_void) -> T) -> T {
        let flock = |how| {
            // SAFETY: an open descriptor; no memory is involved.
            let code = unsafe { libc::flock(self.lock.as_raw_fd(), how) };
            assert_eq!(code, 0, "flock");
        };
        flock(if write { libc::LOCK_EX } else { libc::LOCK_SH });
        let path = CString::new(self.path.as_os_str().as_bytes()).expect("a path without NUL");
        let flags = GDBM_NOLOCK | if write { GDBM_WRCREAT } else { GDBM_READER };
        // SAFETY: the path ends in NUL; block size 0 and a NULL handler ask for the defaults.
        let file = unsafe { gdbm_open(path.as_ptr(), 0, flags, 0o600, ptr::null()) };
        assert!(!file.is_null(), "gdbm_open: {}", std::io::Error::last_os_error());
        let result = f(file);
        // SAFETY: an open file, used up here.
        let code = unsafe { gdbm_close(file) };
        assert_eq!(code, 0, "gdbm_close");
        flock(libc::LOCK_UN);
        result
    }
}

fn store(file: *mut libc::c_void, id: &Id, value: &[u8]) {
    // SAFETY: an open file; key and value are only read.
    let code = unsafe { gdbm_store(file, datum(id), datum(value), GDBM_REPLACE) };
    assert_eq!(code, 0, "gdbm_store");
}

impl Subject for Gdbm {
    fn fresh(&mut self) -> Id {
        let mut id = [0; 32];
        self.random.fill(&mut id);
        id
    }

    fn put(&mut self, id: &Id, value: &[u8]) {
        self.with(true, |file| store(file, id, value));
    }

    fn get(&mut self, id: &Id) -> Option<usize> {
        // SAFETY: an open file; the key is only read.
        let found = self.with(false, |file| unsafe { gdbm_fetch(file, datum(id)) });
        if found.data.is_null() {
            return None;
        }
        // SAFETY: gdbm_fetch returned so many bytes in memory of the caller's.
        let bytes = unsafe { std::slice::from_raw_parts(found.data.cast::<u8>(), found.len as usize) };
        let len = copy(&mut self.out, bytes);
        // SAFETY: the caller frees what gdbm_fetch returned.
        unsafe { libc::free(found.data.cast()) };
        Some(len)
    }

    fn fill(&mut self, ids: &[Id], value: &[u8]) {
        self.with(true, |file| ids.iter().for_each(|id| store(file, id, value)));
    }
}
