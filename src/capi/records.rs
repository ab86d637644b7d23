//! Records of an application's own, for servers that keep their own hooks.

use std::ffi::{c_uchar, c_void};

use super::border::{border, borrow, bytes, checked, fill, out, room};
use super::{sesscache, sesscache_each_fn, sesscache_status};
use crate::status::Error;
use crate::tls::SSL_SESSION;

/// Stores a record of the application's own under `id` (1 to 255 bytes) until `expires` (seconds since 1970). The store
/// seals it and evicts it like a session; a record with the same id is replaced. For servers that keep their own session
/// callbacks.
///
/// `data` may be NULL when `len` is 0. The library copies `id` and `data`; they stay the caller's.
///
/// Returns SESSCACHE_INVALID for any other NULL and for an id that is empty or too long, SESSCACHE_FULL for more than 65536
/// bytes of data or when no room can be made, SESSCACHE_BUSY when another process held the store past the deadline.
// # Safety
// `cache` is NULL or an open handle; `id` is NULL or has `id_len` bytes, `data` is NULL or has `len`; nobody changes them
// before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_put(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
    data: *const c_void,
    len: usize,
    expires: i64,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `bytes` demands NULL or `id_len` bytes that do not change, which the caller owes.
        let id = unsafe { bytes(id, id_len, "id") }?;
        // SAFETY: `bytes` demands NULL or `len` bytes that do not change, which the caller owes.
        let data = unsafe { bytes(data.cast(), len, "data") }?;
        cache.put(id, data, expires)
    })
}

/// Copies the record under `id` to `data`, which has room for `*len` bytes, and sets `*len` to the size of the record.
///
/// When the room is too small, nothing is copied, `*len` is set to the size, and the status is SESSCACHE_INVALID. `data` may
/// be NULL when `*len` is 0: that asks for the size. `id` and `data` must not overlap.
///
/// Returns SESSCACHE_NOT_FOUND when there is no such record or it has expired, SESSCACHE_INVALID for any other NULL, for an
/// id that is empty or too long and for too little room, SESSCACHE_BUSY when the store could not be read.
// # Safety
// `cache` is NULL or an open handle; `id` is NULL or has `id_len` bytes that nobody changes before the call returns; `len` is
// NULL or a size_t with a value, `data` is NULL or has room for that many bytes, and nobody else uses either meanwhile.
#[no_mangle]
pub unsafe extern "C" fn sesscache_get(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
    data: *mut c_void,
    len: *mut usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `bytes` demands NULL or `id_len` bytes that do not change, which the caller owes.
        let id = unsafe { bytes(id, id_len, "id") }?;
        // SAFETY: `out` demands NULL or a size_t that has a value and is nobody else's, which the caller owes.
        let len = unsafe { out(len, "len") }?;
        // SAFETY: `room` demands NULL or `*len` bytes that are nobody else's, which the caller owes.
        let data = unsafe { room(data.cast(), *len, "data") }?;
        *len = cache.get(id, |record| {
            if record.len() <= data.len() {
                fill(data, record.iter().copied());
            }
            record.len()
        })?;
        if *len > data.len() {
            return Err(Error::invalid(format!("the record has {len} bytes")).remedy("give room for them"));
        }
        Ok(())
    })
}

/// Stores `session` under its id until it expires, as a record of the application's own. For servers that keep their own session
/// callbacks, such as providers of a server's cache interface: call it where the program has a new session
/// (SSL_CTX_sess_set_new_cb(3)). What may resume, such as the server name, early data and single use, is the program's to decide:
/// the options ttl, sni, single_use and remove have no effect, and sesscache_forget() does not know the session.
///
/// The session stays the caller's. It comes from the OpenSSL that this library is linked with. No other thread may change it meanwhile.
///
/// Returns SESSCACHE_INVALID for NULL and for a session without an id, such as one in a stateless ticket; SESSCACHE_FULL when it has
/// more than 65536 bytes or no room can be made, SESSCACHE_BUSY when another process held the store past the deadline,
/// SESSCACHE_MISMATCH when the library was built for another OpenSSL, SESSCACHE_OPENSSL when memory runs out.
// # Safety
// `cache` is NULL or an open handle; `session` is NULL or a live SSL_SESSION of this libssl that nobody changes before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_put_session(cache: *mut sesscache, session: *mut SSL_SESSION) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `put_session_raw` demands NULL or a live session that nobody changes, which the caller owes.
        unsafe { cache.put_session_raw(session) }
    })
}

/// Writes the session that sesscache_put_session() stored under `id` to `*session`: a new SSL_SESSION, which the caller frees with
/// SSL_SESSION_free(3), or returns from a get-session callback with `*copy` set to 0 (SSL_CTX_sess_set_get_cb(3)). sesscache_remove()
/// deletes it.
///
/// Returns SESSCACHE_NOT_FOUND when there is no such session or it has expired, or another major version of OpenSSL stored it;
/// SESSCACHE_INVALID for NULL and for an id that is empty or too long, SESSCACHE_BUSY when the store could not be read,
/// SESSCACHE_MISMATCH when the library was built for another OpenSSL.
// # Safety
// `cache` is NULL or an open handle; `id` is NULL or has `id_len` bytes that nobody changes before the call returns; `session` is NULL
// or has room for a pointer that nobody else uses meanwhile.
#[no_mangle]
pub unsafe extern "C" fn sesscache_get_session(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
    session: *mut *mut SSL_SESSION,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: `bytes` demands NULL or `id_len` bytes that do not change, which the caller owes.
        let id = unsafe { bytes(id, id_len, "id") }?;
        let session = checked(session, "session")?;
        let found = cache.get_session_raw(id)?;
        // SAFETY: `write` demands room for a pointer that nobody else uses, which the caller owes.
        unsafe { session.write(found) };
        Ok(())
    })
}

/// Calls `function` with every record of the application's own in the namespace of the cache that has not expired.
///
/// The walk may or may not meet records that are stored or removed meanwhile. `function` may call any function of this
/// header, such as sesscache_remove(). `userdata` is passed through and may be NULL.
///
/// Returns SESSCACHE_OK, also when `function` stopped the walk; SESSCACHE_INVALID for any other NULL.
// # Safety
// `cache` is NULL or an open handle; `function` is NULL or may be called with `userdata` as its type describes.
#[no_mangle]
pub unsafe extern "C" fn sesscache_each(
    cache: *mut sesscache,
    function: sesscache_each_fn,
    userdata: *mut c_void,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        let function = function.ok_or_else(|| Error::invalid("function is NULL"))?;
        cache.each(|id, data, expires| {
            // SAFETY: the function takes its userdata, and slices with their lengths, which outlive the call.
            unsafe { function(userdata, id.as_ptr(), id.len(), data.as_ptr().cast(), data.len(), expires) == 0 }
        })
    })
}
