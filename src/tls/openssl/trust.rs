//! What decides whether a client trusts its server, as far as OpenSSL shows it.

use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_char, c_int, c_long, c_ulong, c_void};

use super::Conn;
use crate::tls::ffi;

/// What decides on trust and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Unreadable {
    VerifyCallback,
    StoreCallback,
    StatusCallback,
    SecurityCallback,
    ClientCertCallback,
    Dane,
    CertificateTransparency,
    RevocationLists,
}

/// Key exchanges (obj_mac.h: NID_kx_rsa, NID_kx_ecdhe, NID_kx_dhe, and NID_kx_any of TLS 1.3) in which both sides are who their
/// certificates say.
const BY_CERTIFICATE: [c_int; 4] = [1037, 1038, 1039, 1063];

/// What says of each step of verification whether it is the host's.
const STORE_CALLBACKS: [unsafe extern "C" fn(*const ffi::X509_STORE) -> Option<ffi::AnyFunction>; 11] = [
    ffi::X509_STORE_get_verify,
    ffi::X509_STORE_get_verify_cb,
    ffi::X509_STORE_get_get_issuer,
    ffi::X509_STORE_get_check_issued,
    ffi::X509_STORE_get_check_revocation,
    ffi::X509_STORE_get_get_crl,
    ffi::X509_STORE_get_check_crl,
    ffi::X509_STORE_get_cert_crl,
    ffi::X509_STORE_get_check_policy,
    ffi::X509_STORE_get_lookup_certs,
    ffi::X509_STORE_get_lookup_crls,
];

/// A stack of certificates, which is freed with the references in it.
struct Certificates(*mut ffi::stack_st_X509);

impl Drop for Certificates {
    fn drop(&mut self) {
        unsafe extern "C" fn free(certificate: *mut libc::c_void) {
            // SAFETY: the stack has a reference to each of its certificates.
            unsafe { ffi::X509_free(certificate.cast()) };
        }
        // SAFETY: the stack and its references are this value's; NULL is an empty one.
        unsafe { ffi::OPENSSL_sk_pop_free(self.0.cast(), Some(free)) };
    }
}

/// The certificates of a stack, which must stay as it is meanwhile.
///
/// # Safety
/// `stack` is NULL or a live stack of X509.
unsafe fn certificates(stack: *mut ffi::stack_st_X509) -> impl Iterator<Item = *mut ffi::X509> {
    let stack = stack.cast::<ffi::OPENSSL_STACK>();
    // SAFETY: NULL has no elements; otherwise live, as demanded above.
    let len = unsafe { ffi::OPENSSL_sk_num(stack) };
    // SAFETY: an index below the stack's length.
    (0..len).map(move |at| unsafe { ffi::OPENSSL_sk_value(stack, at) }.cast())
}

/// Calls a function of the form i2d_X509(3), which writes as many bytes as it says when it is asked with NULL.
fn der(encode: impl Fn(*mut *mut u8) -> c_int) -> Option<Vec<u8>> {
    let len = usize::try_from(encode(ptr::null_mut())).ok().filter(|len| *len > 0)?;
    let mut out = vec![0; len];
    let mut to = out.as_mut_ptr();
    (usize::try_from(encode(&mut to)) == Ok(len)).then_some(out)
}

/// The DER of a certificate.
///
/// # Safety
/// `certificate` is a live X509.
unsafe fn der_of(certificate: *mut ffi::X509) -> Option<Vec<u8>> {
    // SAFETY: live, as demanded above; writes as many bytes as `der` has room for.
    der(|to| unsafe { ffi::i2d_X509(certificate, to) })
}

/// A context of a verification, freed at the end.
struct Verification(*mut ffi::X509_STORE_CTX);

impl Drop for Verification {
    fn drop(&mut self) {
        // SAFETY: made by X509_STORE_CTX_new, freed once; NULL is nothing.
        unsafe { ffi::X509_STORE_CTX_free(self.0) };
    }
}

/// The security callback that OpenSSL sets where the host sets none: that of a new SSL_CTX.
fn usual_security_callback() -> usize {
    static USUAL: AtomicUsize = AtomicUsize::new(0);
    let known = USUAL.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: no preconditions.
    let method = unsafe { ffi::TLS_client_method() };
    // SAFETY: the method lies in libssl.
    let ctx = unsafe { ffi::SSL_CTX_new(method) };
    if ctx.is_null() {
        return 0;
    }
    // SAFETY: made above.
    let usual = unsafe { ffi::SSL_CTX_get_security_callback(ctx) }.map_or(0, |callback| callback as usize);
    // SAFETY: made above, freed once.
    unsafe { ffi::SSL_CTX_free(ctx) };
    USUAL.store(usual, Ordering::Relaxed);
    usual
}

impl Conn<'_> {
    /// Whether its handshake has not begun.
    pub(in crate::tls) fn is_before(self) -> bool {
        // SAFETY: live, as `Conn::new` demands.
        unsafe { ffi::SSL_in_before(self.raw()) == 1 }
    }

    /// Offers a session to the server, or none; false when it cannot be.
    pub(in crate::tls) fn offer(self, session: *mut ffi::SSL_SESSION) -> bool {
        // SAFETY: live, as `Conn::new` demands; the call takes a reference of its own.
        unsafe { ffi::SSL_set_session(self.raw(), session) == 1 }
    }

    /// Whether the server's certificate was verified, by the connection or the session that it goes back to.
    pub(in crate::tls) fn is_verified(self) -> bool {
        self.verify_result() == ffi::X509_V_OK
    }

    /// Whether a handshake ends when the server's certificate is not verified.
    pub(in crate::tls) fn demands_verification(self) -> bool {
        self.verify_mode() & ffi::SSL_VERIFY_PEER != 0
    }

    /// What decides on trust and OpenSSL does not show.
    pub(in crate::tls) fn unreadable(self) -> Option<Unreadable> {
        // SAFETY: live, as `Conn::new` demands.
        if unsafe { ffi::SSL_get_verify_callback(self.raw()) }.is_some() {
            return Some(Unreadable::VerifyCallback);
        }
        if self.store_has_callbacks() {
            return Some(Unreadable::StoreCallback);
        }
        // SAFETY: live, as `Conn::new` demands; NULL is no data. 255 is no usage (RFC 6698 section 2.1.1): nothing is added, and the
        // answer says whether anything could be (SSL_dane_tlsa_add(3): -1 where DANE is not enabled).
        if unsafe { ffi::SSL_dane_tlsa_add(self.raw(), 255, 0, 0, ptr::null(), 0) } != -1 {
            return Some(Unreadable::Dane);
        }
        let mut status: *const c_void = ptr::null();
        // SAFETY: the SSL_CTX lives as long as its SSL; this control writes a pointer.
        unsafe {
            ffi::SSL_CTX_ctrl(self.ctx().raw(), ffi::SSL_CTRL_GET_TLSEXT_STATUS_REQ_CB, 0, (&raw mut status).cast())
        };
        if !status.is_null() && self.status_type() >= 0 {
            return Some(Unreadable::StatusCallback);
        }
        // SAFETY: live, as `Conn::new` demands.
        let security = unsafe { ffi::SSL_get_security_callback(self.raw()) }.map_or(0, |callback| callback as usize);
        if security != usual_security_callback() {
            return Some(Unreadable::SecurityCallback);
        }
        // SAFETY: the SSL_CTX lives as long as its SSL.
        if unsafe { ffi::SSL_CTX_get_client_cert_cb(self.ctx().raw()) }.is_some() {
            return Some(Unreadable::ClientCertCallback);
        }
        // SAFETY: live, as `Conn::new` demands.
        if unsafe { ffi::SSL_ct_is_enabled(self.raw()) } != 0 {
            return Some(Unreadable::CertificateTransparency);
        }
        const LISTS: c_ulong = ffi::X509_V_FLAG_CRL_CHECK | ffi::X509_V_FLAG_CRL_CHECK_ALL;
        (self.verify_flags().iter().any(|flags| flags & LISTS != 0)).then_some(Unreadable::RevocationLists)
    }

    /// The type of stapled status that is asked for; negative for none.
    fn status_type(self) -> c_long {
        // SAFETY: live, as `Conn::new` demands; this control reads a number.
        unsafe { ffi::SSL_ctrl(self.raw(), ffi::SSL_CTRL_GET_TLSEXT_STATUS_REQ_TYPE, 0, ptr::null_mut()) }
    }

    /// Whether a step of verification is the host's (X509_STORE_set_verify_func(3)): OpenSSL sets none of its own.
    fn store_has_callbacks(self) -> bool {
        let store = self.trust_store();
        // SAFETY: the store lives as long as the connection.
        STORE_CALLBACKS.iter().any(|get| unsafe { get(store) }.is_some())
    }

    fn param(self) -> *mut ffi::X509_VERIFY_PARAM {
        // SAFETY: live, as `Conn::new` demands.
        unsafe { ffi::SSL_get0_param(self.raw()) }
    }

    /// The store of certificates by which it verifies its server.
    fn trust_store(self) -> *mut ffi::X509_STORE {
        let mut own: *mut ffi::X509_STORE = ptr::null_mut();
        // SAFETY: live, as `Conn::new` demands; this control writes a pointer.
        unsafe { ffi::SSL_ctrl(self.raw(), ffi::SSL_CTRL_GET_VERIFY_CERT_STORE, 0, (&raw mut own).cast()) };
        if !own.is_null() {
            return own;
        }
        // SAFETY: the SSL_CTX lives as long as its SSL, and always has a store.
        unsafe { ffi::SSL_CTX_get_cert_store(self.ctx().raw()) }
    }

    /// The flags of X509_VERIFY_PARAM_set_flags(3), of the connection and of its store of certificates.
    fn verify_flags(self) -> [c_ulong; 2] {
        // SAFETY: the store lives as long as the connection, and always has parameters.
        let of_store = unsafe { ffi::X509_STORE_get0_param(self.trust_store()) };
        // SAFETY: both live as long as the connection.
        [self.param(), of_store].map(|param| unsafe { ffi::X509_VERIFY_PARAM_get_flags(param) })
    }

    /// How a chain is verified, in bytes.
    pub(in crate::tls) fn verification(self) -> Vec<u8> {
        let mut out = Vec::new();
        // SAFETY: live, as `Conn::new` demands.
        let depth = unsafe { ffi::SSL_get_verify_depth(self.raw()) };
        out.extend_from_slice(&self.verify_mode().to_ne_bytes());
        out.extend_from_slice(&depth.to_ne_bytes());
        self.verify_flags().iter().for_each(|flags| out.extend_from_slice(&flags.to_ne_bytes()));
        // SAFETY: the store lives as long as the connection, and always has parameters.
        let of_store = unsafe { ffi::X509_STORE_get0_param(self.trust_store()) };
        for param in [self.param(), of_store] {
            // SAFETY: lives as long as the connection.
            out.extend_from_slice(&unsafe { ffi::X509_VERIFY_PARAM_get_depth(param) }.to_ne_bytes());
            // SAFETY: as above.
            out.extend_from_slice(&unsafe { ffi::X509_VERIFY_PARAM_get_auth_level(param) }.to_ne_bytes());
            // SAFETY: as above.
            out.extend_from_slice(&unsafe { ffi::X509_VERIFY_PARAM_get_inh_flags(param) }.to_ne_bytes());
            // SAFETY: as above.
            out.extend_from_slice(&unsafe { ffi::X509_VERIFY_PARAM_get_time(param) }.to_ne_bytes());
        }
        // SAFETY: live, as `Conn::new` demands; this control reads a number.
        let status = unsafe { ffi::SSL_ctrl(self.raw(), ffi::SSL_CTRL_GET_TLSEXT_STATUS_REQ_TYPE, 0, ptr::null_mut()) };
        out.extend_from_slice(&status.to_ne_bytes());
        out
    }

    /// The names under which the server's certificate is accepted, each with its length, and how they are compared.
    pub(in crate::tls) fn expected_names(self) -> Vec<u8> {
        // SAFETY: the store lives as long as the connection, and always has parameters.
        let of_store = unsafe { ffi::X509_STORE_get0_param(self.trust_store()) };
        let mut out = Vec::new();
        for param in [self.param(), of_store] {
            let mut add = |text: *const c_char| {
                // SAFETY: NULL, or a string that lives as long as the parameters are not changed.
                let text = if text.is_null() { &[] } else { unsafe { CStr::from_ptr(text) }.to_bytes() };
                out.extend_from_slice(&text.len().to_ne_bytes());
                out.extend_from_slice(text);
            };
            for n in 0.. {
                // SAFETY: lives as long as the connection; there is no name beyond the last.
                let host = unsafe { ffi::X509_VERIFY_PARAM_get0_host(param, n) };
                if host.is_null() {
                    break;
                }
                add(host);
            }
            add(ptr::null());
            // SAFETY: lives as long as the connection.
            add(unsafe { ffi::X509_VERIFY_PARAM_get0_email(param) });
            // SAFETY: lives as long as the connection.
            let address = unsafe { ffi::X509_VERIFY_PARAM_get1_ip_asc(param) };
            add(address);
            // SAFETY: NULL, or memory of OpenSSL's that is this caller's.
            unsafe { ffi::CRYPTO_free(address.cast(), c"trust.rs".as_ptr(), 0) };
            // SAFETY: lives as long as the connection.
            out.extend_from_slice(&unsafe { ffi::X509_VERIFY_PARAM_get_hostflags(param) }.to_ne_bytes());
        }
        out
    }

    /// What it may agree on: versions, options, security level, ciphers.
    pub(in crate::tls) fn protocols(self) -> Vec<u8> {
        let mut out = Vec::new();
        for which in [ffi::SSL_CTRL_GET_MIN_PROTO_VERSION, ffi::SSL_CTRL_GET_MAX_PROTO_VERSION] {
            // SAFETY: live, as `Conn::new` demands; this control reads a number.
            let version = unsafe { ffi::SSL_ctrl(self.raw(), which, 0, ptr::null_mut()) };
            out.extend_from_slice(&version.to_ne_bytes());
        }
        out.extend_from_slice(&self.options().to_ne_bytes());
        out.push(u8::from(self.version() == ffi::OSSL_QUIC1_VERSION));
        // SAFETY: live, as `Conn::new` demands.
        out.extend_from_slice(&unsafe { ffi::SSL_get_security_level(self.raw()) }.to_ne_bytes());
        // SAFETY: live, as `Conn::new` demands; the stack is the SSL's or its SSL_CTX's.
        let list = unsafe { ffi::SSL_get_ciphers(self.raw()) }.cast::<ffi::OPENSSL_STACK>();
        // SAFETY: NULL has no elements.
        for at in 0..unsafe { ffi::OPENSSL_sk_num(list) } {
            // SAFETY: an index below the stack's length.
            let cipher = unsafe { ffi::OPENSSL_sk_value(list, at) }.cast_const().cast();
            // SAFETY: ciphers lie in OpenSSL's table.
            out.extend_from_slice(&unsafe { ffi::SSL_CIPHER_get_id(cipher) }.to_ne_bytes());
        }
        out
    }

    /// The certificate that the client shows when it is asked; empty for none.
    pub(in crate::tls) fn own_certificate(self) -> Vec<u8> {
        // SAFETY: live, as `Conn::new` demands.
        let own = unsafe { ffi::SSL_get_certificate(self.raw()) };
        // SAFETY: the connection keeps its certificate.
        NonNull::new(own).and_then(|own| unsafe { der_of(own.as_ptr()) }).unwrap_or_default()
    }

    /// The certificates that the server has shown in this handshake, in DER, its own first. `None` when it has shown none.
    pub(in crate::tls) fn shown_chain(self) -> Option<Vec<Vec<u8>>> {
        // SAFETY: live, as `Conn::new` demands.
        let shown = unsafe { ffi::SSL_get_peer_cert_chain(self.raw()) };
        // SAFETY: the connection keeps its chain while it is not changed.
        let each = unsafe { certificates(shown) };
        // SAFETY: as above.
        let chain: Vec<Vec<u8>> = each.map(|certificate| unsafe { der_of(certificate) }).collect::<Option<_>>()?;
        (!chain.is_empty()).then_some(chain)
    }

    /// Verifies what a server has shown as a handshake of this connection would do it now (ssl_cert.c: ssl_verify_cert_chain), but
    /// for callbacks of the host. The X509_V_ code; `None` when OpenSSL cannot do it.
    pub(in crate::tls) fn verify(self, chain: &[&[u8]]) -> Option<c_int> {
        // SAFETY: no preconditions.
        let stack = Certificates(unsafe { ffi::OPENSSL_sk_new_null() }.cast());
        for der in chain {
            let mut from = der.as_ptr();
            // SAFETY: reads at most as many bytes as said.
            let certificate = unsafe { ffi::d2i_X509(ptr::null_mut(), &mut from, der.len() as c_long) };
            // SAFETY: a stack, which takes over the reference; NULL is no certificate.
            if certificate.is_null() || unsafe { ffi::OPENSSL_sk_push(stack.0.cast(), certificate.cast()) } <= 0 {
                // SAFETY: still this caller's; NULL is nothing.
                unsafe { ffi::X509_free(certificate) };
                return None;
            }
        }
        // SAFETY: live until it is dropped.
        let leaf = unsafe { certificates(stack.0) }.next()?;
        // SAFETY: no preconditions.
        let verification = Verification(unsafe { ffi::X509_STORE_CTX_new() });
        let context = NonNull::new(verification.0)?.as_ptr();
        // SAFETY: the context is new; the store lives as long as the connection, the certificates as long as the stack, which is freed
        // after the context.
        if unsafe { ffi::X509_STORE_CTX_init(context, self.trust_store(), leaf, stack.0) } != 1 {
            return None;
        }
        // SAFETY: the context was made ready above.
        let param = unsafe { ffi::X509_STORE_CTX_get0_param(context) };
        // SAFETY: live, as `Conn::new` demands.
        let level = unsafe { ffi::SSL_get_security_level(self.raw()) };
        // SAFETY: the context keeps its parameters.
        unsafe { ffi::X509_VERIFY_PARAM_set_auth_level(param, level) };
        // SAFETY: the context was made ready above; the name is one of OpenSSL's own.
        if unsafe { ffi::X509_STORE_CTX_set_default(context, c"ssl_server".as_ptr()) } != 1 {
            return None;
        }
        // SAFETY: both live, the connection's parameters as long as it.
        if unsafe { ffi::X509_VERIFY_PARAM_set1(param, self.param()) } != 1 {
            return None;
        }
        // SAFETY: the context was made ready above.
        unsafe { ffi::X509_verify_cert(context) };
        // SAFETY: as above.
        Some(unsafe { ffi::X509_STORE_CTX_get_error(context) })
    }

    /// The result of the verification of the server, by the connection or the session that it goes back to.
    pub(in crate::tls) fn verify_result(self) -> c_int {
        // SAFETY: live, as `Conn::new` demands. The codes fit an int.
        unsafe { ffi::SSL_get_verify_result(self.raw()) as c_int }
    }

    /// Whether a certificate alone says who each side is: no key that both know beforehand, and no password.
    pub(in crate::tls) fn is_by_certificate(self) -> bool {
        // SAFETY: live, as `Conn::new` demands.
        let cipher = unsafe { ffi::SSL_get_current_cipher(self.raw()) };
        // SAFETY: ciphers lie in OpenSSL's table.
        let exchange =
            NonNull::new(cipher.cast_mut()).map(|cipher| unsafe { ffi::SSL_CIPHER_get_kx_nid(cipher.as_ptr()) });
        exchange.is_some_and(|nid| BY_CERTIFICATE.contains(&nid))
    }
}
