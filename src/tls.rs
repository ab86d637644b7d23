//! The OpenSSL side: what attach sets on an SSL_CTX, and why.
//!
//! - Session cache mode `SERVER | NO_INTERNAL | NO_AUTO_CLEAR`, with the CLIENT bit left as it is. Without NO_INTERNAL,
//!   SSL_CTX_free in one worker would empty the shared store through the remove callback.
//! - `SSL_OP_NO_TICKET | SSL_OP_NO_ANTI_REPLAY`: TLS 1.2 clients use session ids, TLS 1.3 tickets become 32-byte ids.
//!   The store's atomic take replaces OpenSSL's anti-replay, which works within one process only.
//! - The three callbacks and the id generator, as trampolines that know their cache.
//! - The timeout, when the option `ttl` is given.

mod connection;
mod decoded;
mod ffi;
mod hooks;
mod openssl;
pub(crate) mod policy;
mod session;
mod slots;
pub(crate) mod text;

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, c_long, c_void};

use self::decoded::Decoded;
use self::openssl::{Callbacks, Conn, Ctx, Trampolines};
use self::slots::{trampolines, SLOTS};
use crate::options::{Options, Remove, SingleUse, Sni};
use crate::status::{Error, Result, Status};
use crate::store::{thread, Namespace, Store};

pub(crate) use self::ffi::{SSL, SSL_CTX};

/// The bits of the session cache mode that attach decides; CLIENT stays the host's.
const MODE: c_long = ffi::SSL_SESS_CACHE_SERVER | ffi::SSL_SESS_CACHE_NO_INTERNAL | ffi::SSL_SESS_CACHE_NO_AUTO_CLEAR;
const OPTIONS: u64 = ffi::SSL_OP_NO_TICKET_64 | ffi::SSL_OP_NO_ANTI_REPLAY;

/// How sessions are to be treated, of one cache.
pub(crate) struct Policy {
    pub(crate) namespace: String,
    ttl: Option<Duration>,
    sni: Sni,
    single_use: SingleUse,
    remove: Remove,
}

/// A store with a policy and a set of callbacks: what SSL_CTXs are attached to.
pub(crate) struct Binding {
    pub(crate) store: Arc<Store>,
    pub(crate) policy: Policy,
    decoded: Decoded,
    slot: AtomicUsize,
}

impl Binding {
    /// Takes one of the 64 sets of callbacks.
    pub(crate) fn new(store: Arc<Store>, options: &Options) -> Result<Arc<Binding>> {
        let binding = Arc::new(Binding {
            store,
            policy: Policy {
                namespace: options.namespace.clone(),
                ttl: options.ttl,
                sni: options.sni,
                single_use: options.single_use,
                remove: options.remove,
            },
            decoded: Decoded::new(options.decoded),
            slot: AtomicUsize::new(SLOTS),
        });
        let slot = slots::claim(Arc::as_ptr(&binding).cast_mut()).ok_or_else(|| {
            Error::new(Status::Full, format!("{SLOTS} caches are open in this process; close one first"))
        })?;
        binding.slot.store(slot, Ordering::Release);
        Ok(binding)
    }

    fn slot(&self) -> usize {
        self.slot.load(Ordering::Acquire)
    }

    /// Seconds from a full handshake to the end of what follows from it.
    fn life(&self, conn: Conn<'_>) -> u64 {
        self.policy.ttl.map_or_else(|| conn.ctx().timeout().max(1) as u64, |ttl| ttl.as_secs())
    }

    fn trampolines(&self) -> &'static Trampolines {
        trampolines(self.slot())
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if self.slot() < SLOTS {
            slots::release(self.slot());
        }
        // So that the map goes with the last cache of a directory, and not with the thread.
        thread::leave(&self.store);
    }
}

/// What an SSL_CTX keeps of each binding it was attached to, until it is freed: its SSLs may call back until then.
struct Attachment {
    binding: Arc<Binding>,
    mode: c_long,
    options: u64,
    timeout: c_long,
}

static CTX_INDEX: AtomicI32 = AtomicI32::new(-1);

fn ctx_index() -> c_int {
    openssl::ex_index(&CTX_INDEX, ffi::CRYPTO_EX_INDEX_SSL_CTX, None, Some(free_attachments))
}

unsafe extern "C" fn free_attachments(
    _parent: *mut c_void,
    value: *mut c_void,
    _ad: *mut ffi::CRYPTO_EX_DATA,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !value.is_null() {
        // SAFETY: our index holds only boxes made in `attachments`; OpenSSL frees the value once, with the SSL_CTX.
        drop(unsafe { Box::from_raw(value.cast::<Vec<Attachment>>()) });
    }
}

/// The attachments of an SSL_CTX, made when there are none.
///
/// # Safety
/// `ctx` is live and no other thread attaches or detaches it.
unsafe fn attachments<'a>(ctx: *mut SSL_CTX) -> Option<&'a mut Vec<Attachment>> {
    // SAFETY: by contract.
    let found = unsafe { ffi::SSL_CTX_get_ex_data(ctx, ctx_index()) };
    if !found.is_null() {
        // SAFETY: our index holds only what is put there below.
        return unsafe { found.cast::<Vec<Attachment>>().as_mut() };
    }
    let made = Box::into_raw(Box::<Vec<Attachment>>::default());
    // SAFETY: by contract.
    if unsafe { ffi::SSL_CTX_set_ex_data(ctx, ctx_index(), made.cast()) } != 1 {
        // SAFETY: OpenSSL did not take it.
        drop(unsafe { Box::from_raw(made) });
        return None;
    }
    // SAFETY: made above, and owned by the SSL_CTX from now on.
    unsafe { made.as_mut() }
}

/// Makes `ctx` look up and store its sessions in this cache.
///
/// # Safety
/// `ctx` is a live SSL_CTX that no other thread is changing.
pub(crate) unsafe fn attach(binding: &Arc<Binding>, ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: by contract.
    let host = unsafe { Ctx::new(ctx) };
    check_openssl(host)?;
    let ours = binding.trampolines();
    let Callbacks { new, get, remove } = host.callbacks();
    let both_ours = get.is_some_and(|get| ptr::fn_addr_eq(get, ours.get))
        && remove.is_some_and(|remove| ptr::fn_addr_eq(remove, ours.remove));
    match new.map(slots::slot_of) {
        Some(Some(slot)) if slot == binding.slot() && both_ours => return Ok(()),
        Some(Some(slot)) if slot == binding.slot() => {
            return Err(Error::invalid(
                "a session callback was set after the SSL_CTX was attached (SSL_CTX_sess_set_get_cb or _remove_cb); \
                 remove it, call sesscache_detach and attach again",
            ))
        }
        Some(Some(_)) => {
            return Err(Error::invalid("the SSL_CTX is attached to another cache; call sesscache_detach first"))
        }
        None if get.is_none() && remove.is_none() => {}
        _ => {
            return Err(Error::invalid(
                "the SSL_CTX has session callbacks of its own (SSL_CTX_sess_set_new_cb, _get_cb or _remove_cb); \
                 remove them, or use sesscache_put and sesscache_get from within them",
            ))
        }
    }
    let out_of_memory = || Error::new(Status::OpenSsl, "OpenSSL could not keep the attachment: out of memory");
    if session::note_index() < 0 || !connection::prepare() {
        return Err(out_of_memory());
    }
    // SAFETY: by contract.
    let kept = unsafe { attachments(ctx) }.ok_or_else(out_of_memory)?;
    let mode = host.cache_mode();
    let (options, timeout) = (host.options(), host.timeout());
    kept.push(Attachment { binding: Arc::clone(binding), mode, options, timeout });

    host.set_cache_mode(MODE | (mode & ffi::SSL_SESS_CACHE_CLIENT));
    host.set_options(OPTIONS);
    if let Some(ttl) = binding.policy.ttl {
        host.set_timeout(ttl.as_secs() as c_long);
    }
    host.set_callbacks(Some(ours));
    Ok(())
}

/// Undoes [`attach`] for connections made from now on.
///
/// # Safety
/// As for [`attach`].
pub(crate) unsafe fn detach(ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: by contract.
    let host = unsafe { Ctx::new(ctx) };
    let Some(slot) = host.callbacks().new.and_then(slots::slot_of) else {
        return Err(Error::new(Status::NotFound, "the SSL_CTX is not attached"));
    };
    host.set_callbacks(None);
    // SAFETY: by contract.
    let kept = unsafe { attachments(ctx) }.and_then(|kept| kept.iter().rfind(|a| a.binding.slot() == slot));
    if let Some(attachment) = kept {
        host.set_cache_mode(attachment.mode);
        host.clear_options(OPTIONS & !attachment.options);
        host.set_timeout(attachment.timeout);
    }
    Ok(())
}

/// Deletes every session that could resume this connection, and stores no more of it.
///
/// # Safety
/// `ssl` is a live connection driven by this thread.
pub(crate) unsafe fn forget(ssl: *mut SSL) -> Result<()> {
    // SAFETY: by contract.
    let conn = unsafe { Conn::new(ssl) };
    let Some(session) = conn.session() else {
        return Err(Error::new(Status::NotFound, "the connection has no session"));
    };
    // SAFETY: the note's cache is attached to the SSL_CTX of this connection, which keeps it.
    let binding = session::note(session).and_then(|note| unsafe { slots::binding(note.slot) });
    let Some(binding) = binding else {
        return Err(Error::new(Status::NotFound, "the connection's session is in no cache"));
    };
    let mut ids = vec![session.id().to_vec()];
    if let Some(connection) = connection::find_or_make(conn) {
        connection.forgotten = true;
        ids.extend(connection.ids().iter().map(|id| id.to_vec()));
    }
    for id in ids.iter().filter(|id| !id.is_empty()) {
        binding.store.remove(id, Namespace(&binding.policy.namespace))?;
    }
    Ok(())
}

/// The major version of the OpenSSL that is running.
fn running_major() -> u8 {
    // SAFETY: no preconditions.
    (unsafe { ffi::OpenSSL_version_num() } >> 28) as u8
}

/// Refuses an SSL_CTX of another OpenSSL than the one this library calls.
fn check_openssl(ctx: Ctx<'_>) -> Result<()> {
    const BUILT: &str = env!("SESSCACHE_OPENSSL_MAJOR");
    if running_major().to_string() != BUILT {
        return Err(Error::new(
            Status::Mismatch,
            format!("built for OpenSSL {BUILT}, running with {}; install the library built for it", running_major()),
        ));
    }
    // The method table lies in the libssl that made the SSL_CTX; the host may have one of its own, linked statically.
    let ours = module_of(ffi::SSL_CTX_new as *const c_void);
    let theirs = module_of(ctx.method());
    if ours.is_none() || ours != theirs {
        return Err(Error::new(
            Status::Mismatch,
            "the SSL_CTX was made by another libssl than this library uses; link the program to the shared libssl",
        ));
    }
    Ok(())
}

/// Where the shared object that contains `address` begins.
fn module_of(address: *const c_void) -> Option<usize> {
    // SAFETY: all-zero is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr only compares the address with the maps of loaded objects.
    let found = unsafe { libc::dladdr(address, &mut info) };
    (found != 0).then_some(info.dli_fbase as usize)
}
