//! The C API against a plain map: any sequence of calls, by several handles, with NULL wherever a pointer may be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null_mut;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{scratch, Input};
use crate::capi::records::*;
use crate::capi::sesscache_status::{self, *};
use crate::capi::*;
use crate::sys::errno;

/// Handles at a time.
const HANDLES: usize = 4;
/// Longest sequence: all of their records fit the store, so nothing is ever evicted.
const CALLS: usize = 48;
/// What errno is before every call, and has to be after it.
const ERRNO: c_int = 4711;
const NAMESPACES: [&str; 3] = ["", "a", "another"];

/// Namespace and id.
type Name = (usize, Vec<u8>);

struct Record {
    data: Vec<u8>,
    expires: i64,
}

struct Model {
    path: CString,
    handles: [(*mut sesscache, usize); HANDLES],
    records: BTreeMap<Name, Record>,
}

/// Whether a record is to be found, where time passes between two readings of the clock.
#[derive(PartialEq, Eq)]
enum Alive {
    Yes,
    No,
    Maybe,
}

fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() as i64
}

/// The store's clock may lag behind the exact one by a tick of the timer.
fn alive(expires: i64, before: i64) -> Alive {
    if expires < before - 1 {
        Alive::No
    } else if seconds() < expires {
        Alive::Yes
    } else {
        Alive::Maybe
    }
}

/// Runs a call and looks at what every call promises.
fn call(f: impl FnOnce() -> sesscache_status) -> sesscache_status {
    errno::set(ERRNO);
    let status = f();
    assert_eq!(errno::get(), ERRNO, "a call changes errno");
    // SAFETY: no preconditions.
    assert_eq!(unsafe { openssl_sys::ERR_peek_last_error() }, 0, "a call leaves an OpenSSL error behind");
    assert!(!matches!(status, SESSCACHE_BUG), "a fault inside: {}", message());
    assert_eq!(status == SESSCACHE_OK, status as c_int == 0);
    if status != SESSCACHE_OK {
        assert!(!message().is_empty(), "{status:?} without a word");
    }
    status
}

fn message() -> String {
    // SAFETY: never NULL, NUL-terminated, valid until this thread's next failure.
    unsafe { CStr::from_ptr(sesscache_errmsg()) }.to_string_lossy().into_owned()
}

/// Does what the input says.
pub(super) fn calls(data: &[u8]) {
    // One directory for all inputs of a thread: making one costs more than all the calls.
    thread_local!(static PLACE: (TempDir, CString) = {
        let scratch = scratch();
        let path = CString::new(scratch.path().join("store").as_os_str().as_bytes()).expect("no NUL");
        (scratch, path)
    });
    let path = PLACE.with(|(_, path)| path.clone());
    let mut model = Model { path, handles: [(null_mut(), 0); HANDLES], records: BTreeMap::new() };
    let mut input = Input(data);
    model.open(0, 0);
    for _ in 0..CALLS {
        if input.is_empty() {
            break;
        }
        model.step(&mut input);
    }
    model.end();
}

impl Model {
    fn open(&mut self, slot: usize, namespace: usize) {
        self.close(slot);
        // Patience for a busy machine: what waits does not fail.
        let options = format!("capacity=16MiB readers=16 deadline=10s namespace='{}'", NAMESPACES[namespace]);
        let options = CString::new(options).expect("no NUL");
        let mut handle = null_mut();
        // SAFETY: both strings end with NUL and outlive the call.
        let status = call(|| unsafe { sesscache_open(self.path.as_ptr(), options.as_ptr(), &mut handle) });
        assert_eq!(status, SESSCACHE_OK, "{}", message());
        self.handles[slot] = (handle, namespace);
    }

    fn close(&mut self, slot: usize) {
        let (handle, _) = std::mem::replace(&mut self.handles[slot], (null_mut(), 0));
        errno::set(ERRNO);
        // SAFETY: NULL, or an open handle that nobody has any more.
        unsafe { sesscache_close(handle) };
        assert_eq!(errno::get(), ERRNO, "closing changes errno");
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        let slot = usize::from(op >> 4) % HANDLES;
        let (handle, namespace) = self.handles[slot];
        match op & 15 {
            0 => self.open(slot, usize::from(input.byte()) % NAMESPACES.len()),
            1 => self.close(slot),
            2..=5 => self.put(handle, namespace, input),
            6..=8 => self.get(handle, namespace, input),
            9 => self.remove(handle, namespace, input),
            10 => self.each(handle, namespace, usize::from(input.byte())),
            11 => {
                // SAFETY: NULL or an open handle.
                let status = call(|| unsafe { sesscache_flush(handle) });
                assert_eq!(status, expected(handle, SESSCACHE_OK), "{}", message());
                if status == SESSCACHE_OK {
                    self.records.clear();
                }
            }
            12 => {
                let (most, mut swept) = (usize::from(input.byte()), usize::MAX);
                let to = if most & 1 == 0 { &mut swept as *mut usize } else { null_mut() };
                // SAFETY: NULL or an open handle; NULL or a size_t.
                let status = call(|| unsafe { sesscache_sweep(handle, most, to) });
                assert_eq!(status, expected(handle, SESSCACHE_OK), "{}", message());
                assert!(swept == usize::MAX || swept <= most, "{swept} of at most {most} are swept");
            }
            13 => self.stats(handle, input),
            14 => refused_opens(&self.path, input),
            _ => {
                let status = c_int::from_ne_bytes(input.bytes());
                // SAFETY: a phrase for every number, never NULL.
                assert!(!unsafe { CStr::from_ptr(sesscache_strerror(status)) }.is_empty());
                unsafe extern "C" fn log(_: *mut c_void, level: c_int, line: *const c_char) {
                    // SAFETY: by the description of the log function.
                    assert!((0..8).contains(&level) && !unsafe { CStr::from_ptr(line) }.is_empty());
                }
                // SAFETY: NULL or an open handle; the function needs no userdata.
                unsafe { sesscache_set_log(handle, (status & 1 == 0).then_some(log), null_mut()) };
            }
        }
    }

    fn put(&mut self, handle: *mut sesscache, namespace: usize, input: &mut Input<'_>) {
        let id = id(input);
        let (kind, seed) = (input.byte(), input.byte());
        let len = match kind & 3 {
            0 => usize::from(seed),
            1 => usize::from(seed) * 40,
            2 => usize::from(seed) * 256,
            _ => 65_530 + usize::from(seed & 7),
        };
        let data: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        let expires = match kind >> 2 & 7 {
            0 => i64::from(input.byte()) - 4 + seconds(),
            1 => input.u64() as i64,
            _ => seconds() + 1_000,
        };
        let nothing = kind & 0x80 != 0 && len == 0;
        let at = if nothing { null_mut() } else { data.as_ptr().cast_mut() };
        // SAFETY: NULL or an open handle; id and data have the lengths given.
        let status = call(|| unsafe { sesscache_put(handle, id.as_ptr(), id.len(), at.cast(), len, expires) });
        let good = match (id.len(), len) {
            (_, 65_537..) => SESSCACHE_FULL,
            (1..=255, _) => SESSCACHE_OK,
            _ => SESSCACHE_INVALID,
        };
        assert_eq!(status, expected(handle, good), "a put of {len} bytes under {} says: {}", id.len(), message());
        if status == SESSCACHE_OK {
            // Times are kept in 32 bits.
            let expires = expires.clamp(0, i64::from(u32::MAX));
            self.records.insert((namespace, id), Record { data, expires });
        }
    }

    fn get(&mut self, handle: *mut sesscache, namespace: usize, input: &mut Input<'_>) {
        let (id, room) = (id(input), usize::from(input.u16()));
        let mut data = vec![0xEE_u8; room];
        let (mut len, before) = (room, seconds());
        let at = if room == 0 { null_mut() } else { data.as_mut_ptr() };
        // SAFETY: NULL or an open handle; id and data have the lengths given.
        let status = call(|| unsafe { sesscache_get(handle, id.as_ptr(), id.len(), at.cast(), &mut len) });
        // SAFETY: without data, room or place for the length nothing is written.
        let odd = call(|| unsafe { sesscache_get(handle, id.as_ptr(), id.len(), null_mut(), null_mut()) });
        assert_eq!(odd, SESSCACHE_INVALID);
        if handle.is_null() || id.is_empty() || id.len() > 255 {
            assert_eq!(status, SESSCACHE_INVALID);
            return;
        }
        let held = self.records.get(&(namespace, id));
        match status {
            SESSCACHE_OK | SESSCACHE_INVALID => {
                let held = held.expect("a record is found that nobody stored");
                assert!(alive(held.expires, before) != Alive::No, "a record is found after its time");
                assert_eq!(len, held.data.len(), "a record has another size than it was stored with");
                assert_eq!(status == SESSCACHE_OK, len <= room);
                let copied = if status == SESSCACHE_OK { len } else { 0 };
                assert_eq!(data[..copied], held.data[..copied], "a record has other data than it was stored with");
                assert!(data[copied..].iter().all(|byte| *byte == 0xEE), "a get writes beyond the record");
            }
            SESSCACHE_NOT_FOUND => {
                let lost = held.is_some_and(|held| alive(held.expires, before) == Alive::Yes);
                assert!(!lost, "a record is gone before its time");
                assert!(len == room && data.iter().all(|byte| *byte == 0xEE), "a get of nothing writes something");
            }
            other => panic!("a get says {other:?}: {}", message()),
        }
    }

    fn remove(&mut self, handle: *mut sesscache, namespace: usize, input: &mut Input<'_>) {
        let (id, before) = (id(input), seconds());
        // SAFETY: NULL or an open handle; id has the length given.
        let status = call(|| unsafe { sesscache_remove(handle, id.as_ptr(), id.len()) });
        if handle.is_null() || id.is_empty() || id.len() > 255 {
            assert_eq!(status, SESSCACHE_INVALID);
            return;
        }
        let held = self.records.remove(&(namespace, id));
        match status {
            // What has expired may still lie there.
            SESSCACHE_OK => assert!(held.is_some(), "a record is removed that nobody stored"),
            SESSCACHE_NOT_FOUND => {
                let lost = held.is_some_and(|held| alive(held.expires, before) == Alive::Yes);
                assert!(!lost, "a record is gone before its time");
            }
            other => panic!("a remove says {other:?}: {}", message()),
        }
    }

    /// Visits all records, or as many as `most` says.
    fn each(&mut self, handle: *mut sesscache, namespace: usize, most: usize) {
        struct Seen {
            most: usize,
            records: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
        }
        unsafe extern "C" fn see(
            seen: *mut c_void,
            id: *const u8,
            id_len: usize,
            data: *const c_void,
            len: usize,
            expires: i64,
        ) -> c_int {
            // SAFETY: the pointer given to sesscache_each below.
            let seen = unsafe { &mut *seen.cast::<Seen>() };
            // SAFETY: by the description of the function.
            let id = unsafe { std::slice::from_raw_parts(id, id_len) };
            // SAFETY: same.
            let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
            let before = seen.records.insert(id.to_vec(), (data.to_vec(), expires));
            assert!(before.is_none(), "a record is visited twice");
            c_int::from(seen.records.len() >= seen.most)
        }
        let before = seconds();
        let mut seen = Seen { most: if most == 0 { usize::MAX } else { most }, records: BTreeMap::new() };
        // SAFETY: NULL or an open handle; the function keeps to its description.
        let status = call(|| unsafe { sesscache_each(handle, Some(see), (&raw mut seen).cast()) });
        assert_eq!(status, expected(handle, SESSCACHE_OK), "{}", message());
        // SAFETY: no function, nothing is called.
        assert_eq!(call(|| unsafe { sesscache_each(handle, None, null_mut()) }), SESSCACHE_INVALID);
        if status != SESSCACHE_OK {
            return;
        }
        for (id, (data, expires)) in &seen.records {
            let held = self.records.get(&(namespace, id.clone())).expect("a record is visited that nobody stored");
            assert!(held.data == *data && held.expires == *expires, "a record is visited that is not what was stored");
            assert!(alive(held.expires, before) != Alive::No, "a record is visited after its time");
        }
        let missing: BTreeSet<&Vec<u8>> = self
            .records
            .iter()
            .filter(|((of, id), held)| {
                *of == namespace && !seen.records.contains_key(id) && alive(held.expires, before) == Alive::Yes
            })
            .map(|((_, id), _)| id)
            .collect();
        assert!(seen.records.len() >= seen.most || missing.is_empty(), "{} records are not visited", missing.len());
    }

    fn stats(&self, handle: *mut sesscache, input: &mut Input<'_>) {
        let size = usize::from(input.byte()) * 2;
        let mut room = [0xEE_u8; 512];
        // SAFETY: NULL or an open handle; the room has as many bytes, and more.
        let status = call(|| unsafe { sesscache_read_stats(handle, room.as_mut_ptr().cast(), size) });
        let good = if size == 0 { SESSCACHE_INVALID } else { SESSCACHE_OK };
        assert_eq!(status, expected(handle, good), "{}", message());
        let written = if status == SESSCACHE_OK { size } else { 0 };
        assert!(room[written..].iter().all(|byte| *byte == 0xEE), "statistics are written beyond their size");
    }

    /// A flush leaves nothing to the next input, which is to give the same whatever ran before.
    fn end(mut self) {
        self.open(0, 0);
        if !self.records.is_empty() {
            // SAFETY: an open handle.
            assert_eq!(call(|| unsafe { sesscache_flush(self.handles[0].0) }), SESSCACHE_OK, "{}", message());
        }
        (0..HANDLES).for_each(|slot| self.close(slot));
    }
}

fn expected(handle: *mut sesscache, otherwise: sesscache_status) -> sesscache_status {
    if handle.is_null() {
        SESSCACHE_INVALID
    } else {
        otherwise
    }
}

/// Ids of a few kinds, so that the calls meet: short ones, long ones, ones that look like the library's own.
fn id(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.byte();
    match kind >> 4 {
        0..=9 => vec![kind & 7; 1 + usize::from(kind >> 3 & 1)],
        10..=11 => vec![kind & 3; 32],
        12 => vec![kind & 3; 255],
        13 => vec![1; 256],
        14 => Vec::new(),
        _ => input.up_to(usize::from(kind & 15) * 3).to_vec(),
    }
}

/// Opens that must be refused, and leave nothing behind.
fn refused_opens(path: &CStr, input: &mut Input<'_>) {
    let mut handle = null_mut();
    let text = CString::new(input.up_to(24).iter().copied().filter(|byte| *byte != 0).collect::<Vec<u8>>());
    let text = text.expect("no NUL");
    // SAFETY: NULL is refused.
    assert_eq!(call(|| unsafe { sesscache_open(path.as_ptr(), text.as_ptr(), null_mut()) }), SESSCACHE_INVALID);
    // SAFETY: same.
    assert_eq!(call(|| unsafe { sesscache_open(null_mut(), text.as_ptr(), &mut handle) }), SESSCACHE_INVALID);
    let odd = [text.to_bytes(), b" =\0"].concat();
    // SAFETY: the options end with NUL.
    let status = call(|| unsafe { sesscache_open(path.as_ptr(), odd.as_ptr().cast(), &mut handle) });
    assert_eq!(status, SESSCACHE_INVALID, "an option without a name is accepted");
    assert!(handle.is_null(), "a handle is given out without success");
}
