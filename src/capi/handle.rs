//! The one kind of handle: how it is made, borrowed and given back.

use super::sesscache;
use crate::cache::Cache;
use crate::status::{Error, Result};

/// A handle for a cache, to be given to [`close`] once.
pub(super) fn hand_over(cache: Cache) -> *mut sesscache {
    Box::into_raw(Box::new(cache)).cast()
}

/// The cache of a handle.
///
/// # Safety
/// NULL or a handle that is open during the call.
pub(super) unsafe fn borrow<'a>(handle: *mut sesscache) -> Result<&'a Cache> {
    // SAFETY: by contract; handles come from `hand_over`.
    unsafe { handle.cast::<Cache>().as_ref() }.ok_or_else(|| Error::invalid("cache is NULL; open it first"))
}

/// Ends a handle.
///
/// # Safety
/// NULL or an open handle, which nobody uses any more.
pub(super) unsafe fn close(handle: *mut sesscache) {
    if !handle.is_null() {
        // SAFETY: by contract; handles come from `hand_over`.
        drop(unsafe { Box::from_raw(handle.cast::<Cache>()) });
    }
}
