//! What an SSL_CTX keeps in its ex_data until it is freed: the bindings it was attached to, and what of it is counted.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::Arc;

use libc::{c_int, c_long, c_void};

use super::handshakes::LastRead;
use super::openssl::{ex_index, Ctx};
use super::{ffi, idle, Binding};

/// An SSL_CTX that is not attached.
pub(super) const NO_SLOT: usize = usize::MAX;

/// See the module's first line.
pub(super) struct ContextData {
    /// Of each binding it was attached to: its SSLs may call back until it is freed.
    pub(super) attachments: RefCell<Vec<Attachment>>,
    /// The slot of the binding it is attached to, or `NO_SLOT`. This and what follows is for any thread.
    pub(super) slot: AtomicUsize,
    /// The slot of the binding to which it is attached for its client connections, or `NO_SLOT`.
    pub(super) client_slot: AtomicUsize,
    pub(super) last_read: LastRead,
}

/// A binding, and what the SSL_CTX was like before.
pub(super) struct Attachment {
    pub(super) binding: Arc<Binding>,
    pub(super) mode: c_long,
    pub(super) options: u64,
    pub(super) timeout: c_long,
    pub(super) early_data: u32,
}

impl Attachment {
    /// What `ctx` is like now, before it is attached.
    pub(super) fn of(ctx: Ctx<'_>, binding: &Arc<Binding>) -> Attachment {
        Attachment {
            binding: Arc::clone(binding),
            mode: ctx.cache_mode(),
            options: ctx.options(),
            timeout: ctx.timeout(),
            early_data: ctx.max_early_data(),
        }
    }
}

static INDEX: AtomicI32 = AtomicI32::new(-1);

/// Makes the index, whose values `free` frees.
pub(super) fn prepare(free: ffi::ExFree) -> bool {
    ex_index(&INDEX, ffi::CRYPTO_EX_INDEX_SSL_CTX, None, Some(free)) >= 0
}

/// Without an SSL_CTX that was ever attached there is no index, and -1 reads as NULL.
fn index() -> c_int {
    INDEX.load(Ordering::Acquire)
}

/// Frees what an SSL_CTX keeps.
///
/// # Safety
/// `value` was found under the index in an SSL_CTX that is being freed, and is freed once.
pub(super) unsafe fn free(value: *mut c_void) {
    // SAFETY: the index holds only what `find_or_make` boxed; freed once, as demanded above.
    let ended = unsafe { Box::from_raw(value.cast::<ContextData>()) };
    ended.attachments.into_inner().into_iter().for_each(|attachment| idle::leave(attachment.binding));
}

impl ContextData {
    /// What `ctx` keeps, if anything. For a thread that alone changes the SSL_CTX.
    pub(super) fn find(ctx: Ctx<'_>) -> Option<&ContextData> {
        let found = ctx.ex_data(index()).cast::<ContextData>();
        // SAFETY: our index holds NULL or what is boxed below, which OpenSSL frees with the SSL_CTX; the result lives no longer
        // than the borrow of the SSL_CTX, which no other thread changes meanwhile.
        unsafe { found.as_ref() }
    }

    /// What `ctx` keeps, made when it keeps nothing. For a thread that alone changes the SSL_CTX.
    pub(super) fn find_or_make(ctx: Ctx<'_>) -> Option<&ContextData> {
        if let Some(found) = ContextData::find(ctx) {
            return Some(found);
        }
        let (attachments, last_read) = (RefCell::default(), LastRead::default());
        let made = Box::into_raw(Box::new(ContextData {
            attachments,
            slot: AtomicUsize::new(NO_SLOT),
            client_slot: AtomicUsize::new(NO_SLOT),
            last_read,
        }));
        if !ctx.set_ex_data(index(), made.cast()) {
            // SAFETY: from Box::into_raw above; OpenSSL did not take it.
            drop(unsafe { Box::from_raw(made) });
            return None;
        }
        ContextData::find(ctx)
    }
}

/// The slot of the binding to which an SSL_CTX is attached for its client connections. For any thread.
pub(super) fn client_slot(ctx: Ctx<'_>) -> Option<usize> {
    let kept = NonNull::new(ctx.ex_data(index()).cast::<ContextData>())?.as_ptr();
    // SAFETY: our index holds NULL or what was boxed above, which the SSL_CTX keeps. Only this field is borrowed, an atomic, which
    // threads may share.
    let slot = unsafe { &(*kept).client_slot }.load(Ordering::Relaxed);
    (slot != NO_SLOT).then_some(slot)
}

/// Whether an SSL_CTX was ever attached. For any thread.
pub(super) fn was_attached(ctx: Ctx<'_>) -> bool {
    !ctx.ex_data(index()).is_null()
}

/// The slot of the binding to which an SSL_CTX is attached, and what was read of its counters. For any thread.
pub(super) fn attached(ctx: Ctx<'_>) -> Option<(usize, &LastRead)> {
    let kept = NonNull::new(ctx.ex_data(index()).cast::<ContextData>())?.as_ptr();
    // SAFETY: our index holds NULL or what was boxed above, which the SSL_CTX keeps. Only this field and the next are borrowed, of
    // atomics, which threads may share.
    let slot = unsafe { &(*kept).slot }.load(Ordering::Relaxed);
    // SAFETY: as above.
    (slot != NO_SLOT).then(|| (slot, unsafe { &(*kept).last_read }))
}
