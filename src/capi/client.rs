//! Programs that connect to servers.

use std::ffi::c_char;

use super::border::{border, borrow, checked, text};
use super::{sesscache, sesscache_status, SSL, SSL_CTX};
use crate::cache;

/// Has the sessions stored in the cache that servers give to the client connections of `ctx`: those for which sesscache_resume() is
/// called. `ctx` may be attached with sesscache_attach() as well, in any order, for the connections that it accepts.
///
/// It sets the callback for new sessions and SSL_SESS_CACHE_CLIENT; on an SSL_CTX of TLS_client_method() also
/// SSL_SESS_CACHE_NO_INTERNAL_STORE, since OpenSSL never looks up what it would keep there. `ctx` keeps the cache alive until it is
/// freed: you may close the handle at once. sesscache_detach() undoes it. No other thread may use `ctx` meanwhile.
///
/// Returns SESSCACHE_INVALID for NULL, for an SSL_CTX that is attached to another cache, and for one that has a callback of its own
/// (SSL_CTX_sess_set_new_cb); SESSCACHE_MISMATCH when `ctx` belongs to another OpenSSL; SESSCACHE_OPENSSL when memory runs out. On
/// failure `ctx` is unchanged.
// # Safety
// `cache` is NULL or an open handle, `ctx` NULL or a live SSL_CTX that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_attach_client(cache: *mut sesscache, ctx: *mut SSL_CTX) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        let ctx = checked(ctx, "ctx")?;
        // SAFETY: `attach_client_raw` demands a live SSL_CTX that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache.attach_client_raw(ctx) }
    })
}

/// Offers a session to the server of `ssl`, if there is one that may be used, and has those stored that the server gives. Call it
/// last, right before SSL_connect(): what is set later is not looked at, and sessions of a connection that was changed are not stored.
///
/// `peer` names the server, 1 to 255 bytes of text such as "mail.example:465": what the program connects to, not what it was resolved
/// to. It must not be NULL, and is copied.
///
/// OpenSSL verifies nothing anew when a client resumes; this function does: the certificates that the server has shown are verified by
/// what `ssl` trusts now, and the session is offered only where that comes to the result that it came to then. It is offered only to the
/// same peer, with the same server name, expected names (SSL_set1_host), verification, versions, options, ciphers, client certificate,
/// namespace and option policy. A ticket of TLS 1.3 is used once, over all processes (RFC 8446 appendix C.4); a session of TLS 1.2
/// again and again. Neither is used for longer than its server says, than 7 days (RFC 8446 section 4.6.1), or than the option ttl says,
/// counted from the full handshake. A session that you or an earlier call have offered is withdrawn first.
///
/// Where a function of yours has a say, it is not asked again: this function insists on the option policy, a text that stands for such
/// rules, with a verify callback, functions of an X509_STORE, a security callback, SSL_CTX_set_client_cert_cb(), DANE, certificate
/// transparency, revocation lists, and a callback for a stapled status. OpenSSL does not show what
/// SSL_CTX_set_cert_verify_callback(), SSL_CTX_set_cert_cb(), SSL_CTX_set1_groups() and SSL_CTX_set1_sigalgs() have set: a program that
/// uses one of them for what it trusts or shows must give policy as well. A session that a key known to both sides or a password has
/// made (PSK, SRP) is stored only with policy.
///
/// Early data is sent only by SSL_write_early_data(), if the session allows it. No other thread may use `ssl` meanwhile.
///
/// Returns SESSCACHE_OK when a session is offered, SESSCACHE_NOT_FOUND when there is none and SESSCACHE_BUSY when the store could not be
/// read: the handshake will then be a full one, and its session is stored. SESSCACHE_INVALID for NULL, a `peer` that is empty or too
/// long, a connection that is a server's (call SSL_set_connect_state() first) or has begun its handshake, an SSL_CTX that is not
/// attached by sesscache_attach_client(), and where the option policy is missing; SESSCACHE_OPENSSL when memory runs out. After these
/// the handshake is a full one, and nothing of it is stored.
// # Safety
// `cache` is NULL or an open handle; `ssl` is NULL or a live connection that no other thread uses before the call returns; `peer` is
// NULL or a string.
#[no_mangle]
pub unsafe extern "C" fn sesscache_resume(
    cache: *mut sesscache,
    ssl: *mut SSL,
    peer: *const c_char,
) -> sesscache_status {
    border(|| {
        // SAFETY: `borrow` demands NULL or an open handle, which the caller owes.
        let cache = unsafe { borrow(cache) }?;
        let ssl = checked(ssl, "ssl")?;
        // SAFETY: `text` demands NULL or a string, which the caller owes.
        let peer = unsafe { text(peer) }.unwrap_or_default();
        // SAFETY: `resume_raw` demands a live connection that no other thread uses; it is not NULL, the rest the caller owes.
        unsafe { cache.resume_raw(ssl, peer) }
    })
}

/// As sesscache_resume(), for a connection that must go back to the login of `control`, a connection to the same peer that has ended
/// its handshake: data connections of FTPS, where the server demands that. sesscache_resume() was called for `control`, and both are set
/// up in the same way. In TLS 1.3 each takes a ticket that came over `control` or a connection that goes back to the same login: read
/// from one before, since tickets come with its data. No other thread may use either meanwhile.
///
/// Returns what sesscache_resume() returns; SESSCACHE_INVALID also when the two connections differ, with what differs in
/// sesscache_errmsg().
// # Safety
// `ssl` and `control` are NULL or live connections that no other thread uses before the call returns.
#[no_mangle]
pub unsafe extern "C" fn sesscache_resume_from(ssl: *mut SSL, control: *mut SSL) -> sesscache_status {
    border(|| {
        let (ssl, control) = (checked(ssl, "ssl")?, checked(control, "control")?);
        // SAFETY: `resume_from_raw` demands live connections that no other thread uses; neither is NULL, the rest the caller owes.
        unsafe { cache::resume_from_raw(ssl, control) }
    })
}
