//! Records of an application's own, for servers that keep their own hooks.

use std::ffi::{c_uchar, c_void};

use super::border::{border, bytes, out};
use super::handle::borrow;
use super::{sesscache, sesscache_each_fn, sesscache_status};
use crate::status::{Error, Status};

/// Stores a record of the application's own under `id` (1 to 255 bytes) until `expires` (seconds since 1970), sealed and
/// bounded as sessions are. For servers that keep their own hooks. A record of the same id is replaced.
///
/// Returns SESSCACHE_FULL for more than 65536 bytes or when no room can be made, SESSCACHE_BUSY past the deadline,
/// SESSCACHE_INVALID for NULL or a length that no id has. `data` may be NULL when `len` is 0.
// # Safety
// `cache` is an open handle; `id` and `data` have as many bytes as said.
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
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: by contract.
        let id = unsafe { bytes(id, id_len, "id") }?;
        // SAFETY: by contract.
        let data = if len == 0 { &[] } else { unsafe { bytes(data.cast(), len, "data") }? };
        cache.put(id, data, expires)
    })
}

/// Copies the record under `id` to `data`, which has room for `*len` bytes, and sets `*len` to its size.
///
/// Returns SESSCACHE_NOT_FOUND when there is none or it has expired; SESSCACHE_INVALID for NULL, and when the room is too
/// small: then `*len` is the size it needs and nothing is copied. `data` may be NULL when `*len` is 0, to ask the size.
/// SESSCACHE_BUSY when the store could not be asked.
// # Safety
// `cache` is an open handle; `id` has `id_len` bytes; `data` has room for `*len`.
#[no_mangle]
pub unsafe extern "C" fn sesscache_get(
    cache: *mut sesscache,
    id: *const c_uchar,
    id_len: usize,
    data: *mut c_void,
    len: *mut usize,
) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        // SAFETY: by contract.
        let id = unsafe { bytes(id, id_len, "id") }?;
        // SAFETY: by contract.
        let len = unsafe { out(len, "len") }?;
        let room = *len;
        if data.is_null() && room != 0 {
            return Err(Error::invalid("data is NULL"));
        }
        let size = cache.get(id, |record| {
            if record.len() <= room && !data.is_null() {
                // SAFETY: by contract `data` has `room` bytes; a record in LMDB's map or our buffer is not the caller's.
                unsafe { std::ptr::copy_nonoverlapping(record.as_ptr(), data.cast::<u8>(), record.len()) };
            }
            record.len()
        })?;
        *len = size;
        if size > room {
            return Err(Error::invalid(format!("the record has {size} bytes; give room for them")));
        }
        Ok(())
    })
}

/// Calls `function` with every record of the application's own in the cache's namespace that has not expired. Records stored
/// or removed meanwhile may or may not be seen. `function` may call sesscache_remove() and the like.
///
/// Returns SESSCACHE_OK also when `function` stopped it, SESSCACHE_INVALID for NULL.
// # Safety
// `cache` is an open handle; `function` keeps to its description.
#[no_mangle]
pub unsafe extern "C" fn sesscache_each(
    cache: *mut sesscache,
    function: sesscache_each_fn,
    userdata: *mut c_void,
) -> sesscache_status {
    border(|| {
        // SAFETY: by contract.
        let cache = unsafe { borrow(cache) }?;
        let function = function.ok_or_else(|| Error::new(Status::Invalid, "function is NULL"))?;
        cache.each(|id, data, expires| {
            // SAFETY: by contract; the slices outlive the call.
            unsafe { function(userdata, id.as_ptr(), id.len(), data.as_ptr().cast(), data.len(), expires) == 0 }
        })
    })
}
