//! Attaching and detaching an SSL_CTX, and what it keeps of that.

use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use libc::{c_int, c_long, c_void};

use super::kept::{self, Attachment, ContextData, NO_SLOT};
use super::openssl::{Callbacks, Conn, Ctx};
use super::{client, connection, ffi, running_major, session, slots, Binding, SSL, SSL_CTX};
use crate::options::{SingleUse, Tickets};
use crate::status::{Error, Result, Status};

/// The bits of the session cache mode that attach decides; CLIENT stays the host's.
const MODE: c_long = ffi::SSL_SESS_CACHE_SERVER | ffi::SSL_SESS_CACHE_NO_INTERNAL | ffi::SSL_SESS_CACHE_NO_AUTO_CLEAR;
const OPTIONS: u64 = ffi::SSL_OP_NO_TICKET_64 | ffi::SSL_OP_NO_ANTI_REPLAY;

unsafe extern "C" fn free_kept(
    parent: *mut c_void,
    value: *mut c_void,
    _ad: *mut ffi::CRYPTO_EX_DATA,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !value.is_null() {
        // SAFETY: OpenSSL frees the ex_data of an SSL_CTX first of all, and nobody else has it any more.
        count_handshakes(unsafe { Ctx::new(parent.cast()) });
        // SAFETY: OpenSSL frees a value of the index once, with the SSL_CTX.
        unsafe { kept::free(value) };
    }
}

unsafe extern "C" fn free_connection(
    parent: *mut c_void,
    value: *mut c_void,
    _ad: *mut ffi::CRYPTO_EX_DATA,
    _idx: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    if !value.is_null() {
        // SAFETY: OpenSSL frees a value of the index once, with the SSL.
        let connection = unsafe { connection::take(value) };
        // SAFETY: OpenSSL frees the ex_data of an SSL while that still has its SSL_CTX, and nobody else has the SSL any more. Of
        // what lies in it, `ctx` reads nothing else, and `resumed_elsewhere` what lies in the SSL itself.
        let conn = unsafe { Conn::new(parent.cast()) };
        if let Some(handshakes) = connection.resumed_elsewhere(conn) {
            connection::end_elsewhere(&handshakes, conn, true);
        }
        count_handshakes(conn.ctx());
    }
}

/// Counts the handshakes of an SSL_CTX that no callback has seen.
fn count_handshakes(ctx: Ctx<'_>) {
    if let Some((slot, last_read)) = kept::attached(ctx) {
        slots::guarded(slot, (), |binding| binding.handshakes.read(&binding.store, ctx, last_read));
    }
}

/// Makes `ctx` look up and store its sessions in this cache.
///
/// # Safety
/// `ctx` is a live SSL_CTX that no other thread is changing.
pub(crate) unsafe fn attach(binding: &Arc<Binding>, ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: live, and this thread alone changes it, as demanded above.
    let host = unsafe { Ctx::new(ctx) };
    check_openssl(host)?;
    let ours = binding.trampolines();
    let Callbacks { new, get, remove } = host.callbacks();
    match new.map(slots::slot_of) {
        Some(Some(slot)) if slot == binding.slot() && host.has_callbacks(ours) => return Ok(()),
        // Attached for its client connections.
        Some(Some(slot))
            if slot == binding.slot() && get.is_none() && remove.is_none() && kept::attached(host).is_none() => {}
        Some(Some(slot)) if slot == binding.slot() => {
            let text =
                "a session callback was set after the SSL_CTX was attached (SSL_CTX_sess_set_get_cb or _remove_cb)";
            return Err(Error::invalid(text).remedy("remove it, call sesscache_detach and attach again"));
        }
        Some(Some(_)) => {
            return Err(Error::invalid("the SSL_CTX is attached to another cache").remedy("call sesscache_detach first"))
        }
        None if get.is_none() && remove.is_none() => {}
        _ => {
            let text = "the SSL_CTX has session callbacks of its own (SSL_CTX_sess_set_new_cb, _get_cb or _remove_cb)";
            let remedy = "remove them, or use sesscache_put_session and sesscache_get_session from within them";
            return Err(Error::invalid(text).remedy(remedy));
        }
    }
    let out_of_memory = || Error::new(Status::OpenSsl, "OpenSSL could not keep the attachment: out of memory");
    if !session::prepare() || !connection::prepare(free_connection) || !kept::prepare(free_kept) {
        return Err(out_of_memory());
    }
    let kept = ContextData::find_or_make(host).ok_or_else(out_of_memory)?;
    let mode = host.cache_mode();
    let attachment = Attachment::of(host, binding);
    let mut attachments = kept.attachments.borrow_mut();
    if kept.client_slot.load(Ordering::Relaxed) == NO_SLOT {
        // Attached and detached again and again, it keeps each cache once.
        attachments.retain(|attachment| !Arc::ptr_eq(&attachment.binding, binding));
        attachments.push(attachment);
    }
    drop(attachments);

    host.set_cache_mode(MODE | (mode & ffi::SSL_SESS_CACHE_CLIENT));
    match binding.policy.tickets {
        Tickets::Ids => host.set_options(OPTIONS),
        // Nobody but the host is asked before a stateless ticket is used again; with OpenSSL's own protection on, a ticket is an id
        // that resumes from the internal cache alone.
        Tickets::Host if binding.policy.single_use != SingleUse::Off => host.set_max_early_data(0),
        Tickets::Host => {}
    }
    if let Some(ttl) = binding.policy.ttl {
        host.set_timeout(ttl.as_secs() as c_long);
    }
    host.set_callbacks(ours);
    kept.last_read.begin(host);
    kept.slot.store(binding.slot(), Ordering::Relaxed);
    Ok(())
}

/// What [`attach_client`] makes of a session cache mode. Sessions of clients are of no use in OpenSSL's own cache; that of servers stays
/// as it is.
fn client_mode(host: Ctx<'_>, mode: c_long) -> c_long {
    let internal = if host.is_for_clients_only() { ffi::SSL_SESS_CACHE_NO_INTERNAL_STORE } else { 0 };
    mode | ffi::SSL_SESS_CACHE_CLIENT | internal
}

/// Has the sessions of client connections of `ctx` stored in this cache, where [`super::client::resume`] asks for one.
///
/// # Safety
/// `ctx` is a live SSL_CTX that no other thread is changing.
pub(crate) unsafe fn attach_client(binding: &Arc<Binding>, ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: live, and this thread alone changes it, as demanded above.
    let host = unsafe { Ctx::new(ctx) };
    check_openssl(host)?;
    match host.callbacks().new.map(slots::slot_of) {
        None => {}
        Some(Some(slot)) if slot == binding.slot() => {}
        Some(Some(_)) => {
            return Err(Error::invalid("the SSL_CTX is attached to another cache").remedy("call sesscache_detach first"))
        }
        Some(None) => {
            let text = "the SSL_CTX has a session callback of its own (SSL_CTX_sess_set_new_cb)";
            return Err(Error::invalid(text).remedy("remove it"));
        }
    }
    let out_of_memory = || Error::new(Status::OpenSsl, "OpenSSL could not keep the attachment: out of memory");
    if !client::prepare() || !session::prepare() || !connection::prepare(free_connection) || !kept::prepare(free_kept) {
        return Err(out_of_memory());
    }
    let kept = ContextData::find_or_make(host).ok_or_else(out_of_memory)?;
    let mode = host.cache_mode();
    let mut attachments = kept.attachments.borrow_mut();
    if kept::attached(host).is_none() && kept.client_slot.load(Ordering::Relaxed) == NO_SLOT {
        attachments.retain(|attachment| !Arc::ptr_eq(&attachment.binding, binding));
        attachments.push(Attachment::of(host, binding));
    }
    drop(attachments);
    host.set_cache_mode(client_mode(host, mode));
    host.set_new_callback(binding.trampolines());
    kept.client_slot.store(binding.slot(), Ordering::Relaxed);
    Ok(())
}

/// Undoes [`attach`] and [`attach_client`] for connections made from now on. What the host has set since then stays: callbacks, mode and timeout.
///
/// # Safety
/// As for [`attach`].
pub(crate) unsafe fn detach(ctx: *mut SSL_CTX) -> Result<()> {
    // SAFETY: live, and this thread alone changes it, as demanded above.
    let host = unsafe { Ctx::new(ctx) };
    let not_attached = || Error::new(Status::NotFound, "the SSL_CTX is not attached");
    let kept = ContextData::find(host).ok_or_else(not_attached)?;
    let client = kept.client_slot.swap(NO_SLOT, Ordering::Relaxed);
    if client != NO_SLOT && kept::attached(host).is_none() {
        host.remove_callbacks(slots::trampolines(client));
        if let Some(attachment) = kept.attachments.borrow().iter().rfind(|a| a.binding.slot() == client) {
            if host.cache_mode() == client_mode(host, attachment.mode) {
                host.set_cache_mode(attachment.mode);
            }
        }
        return Ok(());
    }
    let slot = kept::attached(host).ok_or_else(not_attached)?.0;
    host.remove_callbacks(slots::trampolines(slot));
    count_handshakes(host);
    kept.slot.store(NO_SLOT, Ordering::Relaxed);
    if let Some(attachment) = kept.attachments.borrow().iter().rfind(|a| a.binding.slot() == slot) {
        let of_clients = if client == NO_SLOT { attachment.mode } else { ffi::SSL_SESS_CACHE_CLIENT };
        if host.cache_mode() == MODE | (of_clients & ffi::SSL_SESS_CACHE_CLIENT) {
            host.set_cache_mode(attachment.mode);
        }
        match attachment.binding.policy.tickets {
            Tickets::Ids => host.clear_options(OPTIONS & !attachment.options),
            Tickets::Host if host.max_early_data() == 0 => host.set_max_early_data(attachment.early_data),
            Tickets::Host => {}
        }
        if attachment.binding.policy.ttl.is_some_and(|ttl| ttl.as_secs() as c_long == host.timeout()) {
            host.set_timeout(attachment.timeout);
        }
    }
    Ok(())
}

/// Gives a connection what SSL_new(3) would copy from its SSL_CTX now.
///
/// # Safety
/// `ssl` is a live SSL whose handshake has not begun, driven by this thread.
pub(crate) unsafe fn inherit(ssl: *mut SSL) -> Result<()> {
    // SAFETY: live, as demanded above. While SSL_new(3) of OpenSSL 3.2 and later makes it, it has no SSL_CTX.
    if unsafe { ffi::SSL_get_SSL_CTX(ssl) }.is_null() {
        return Err(Error::invalid("the connection has no SSL_CTX yet"));
    }
    // SAFETY: live, and driven by this thread, as demanded above.
    let conn = unsafe { Conn::new(ssl) };
    if !kept::was_attached(conn.ctx()) {
        return Err(Error::new(Status::NotFound, "the SSL_CTX of the connection was never attached"));
    }
    let of_ctx = conn.ctx().options() & OPTIONS;
    conn.set_options(of_ctx);
    conn.clear_options(OPTIONS & !of_ctx);
    if conn.ctx().max_early_data() == 0 {
        conn.set_max_early_data(0);
    }
    conn.set_generator(kept::attached(conn.ctx()).map(|(slot, _)| slots::trampolines(slot)));
    Ok(())
}

/// Refuses to run with another major version of OpenSSL than the one this library was built for.
pub(super) fn check_version() -> Result<()> {
    const BUILT: &str = env!("SESSCACHE_OPENSSL_MAJOR");
    if running_major().to_string() != BUILT {
        let text = format!("built for OpenSSL {BUILT}, running with {}", running_major());
        return Err(Error::new(Status::Mismatch, text).remedy("install the library built for it"));
    }
    Ok(())
}

/// Refuses an SSL_CTX of another OpenSSL than the one this library calls.
fn check_openssl(ctx: Ctx<'_>) -> Result<()> {
    check_version()?;
    // The method table lies in the libssl that made the SSL_CTX; the host may have one of its own, linked statically.
    let ours = module_of(ffi::SSL_CTX_new as *const c_void);
    let theirs = module_of(ctx.method());
    if ours.is_some() && ours.as_ref().map(|ours| ours.begin) == theirs.as_ref().map(|theirs| theirs.begin) {
        return Ok(());
    }
    let name = |module: Option<Module>| module.map_or_else(|| "no shared object".to_owned(), |module| module.path);
    let text =
        format!("the SSL_CTX was made by another libssl ({}) than this library uses ({})", name(theirs), name(ours));
    Err(Error::new(Status::Mismatch, text).remedy("link the program to the shared libssl"))
}

/// A shared object, or the program itself.
struct Module {
    begin: usize,
    path: String,
}

/// The one that contains `address`.
fn module_of(address: *const c_void) -> Option<Module> {
    // SAFETY: all-zero is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr only compares the address with the maps of loaded objects.
    let found = unsafe { libc::dladdr(address, &mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: from_ptr wants a string that stays: dladdr has given the name of an object that is loaded, and this library keeps
    // its libssl loaded as the live SSL_CTX does its own.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned();
    Some(Module { begin: info.dli_fbase as usize, path })
}
