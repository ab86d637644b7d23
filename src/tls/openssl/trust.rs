//! What decides whether a client trusts its server, as far as OpenSSL shows it.

use std::ffi::CStr;
use std::ptr::{self, NonNull};

use libc::{c_char, c_int, c_ulong};

use super::Conn;
use crate::tls::ffi;

/// What decides on trust and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum Unreadable {
    VerifyCallback,
    ClientCertCallback,
    Dane,
    CertificateTransparency,
    RevocationLists,
}

/// A certificate of the client's own store by which it has verified a server: the name under which the store has it, and the DER of
/// both the certificate and what the store trusts it for.
pub(in crate::tls) struct Anchor {
    pub(in crate::tls) subject: Vec<u8>,
    pub(in crate::tls) certificate: Vec<u8>,
}

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

/// The DER of a certificate and of what it is trusted for.
///
/// # Safety
/// `certificate` is a live X509.
unsafe fn der_of(certificate: *mut ffi::X509) -> Option<Vec<u8>> {
    // SAFETY: live, as demanded above; writes as many bytes as `der` has room for.
    der(|to| unsafe { ffi::i2d_X509_AUX(certificate, to) })
}

/// # Safety
/// `certificate` is a live X509.
unsafe fn subject_of(certificate: *mut ffi::X509) -> Option<Vec<u8>> {
    // SAFETY: live, as demanded above, and keeps its name.
    let name = unsafe { ffi::X509_get_subject_name(certificate) };
    // SAFETY: as above; writes as many bytes as `der` has room for.
    der(|to| unsafe { ffi::i2d_X509_NAME(name, to) })
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
        // SAFETY: live, as `Conn::new` demands.
        unsafe { ffi::SSL_get_verify_result(self.raw()) == libc::c_long::from(ffi::X509_V_OK) }
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
        // SAFETY: the SSL_CTX lives as long as its SSL.
        if unsafe { ffi::SSL_CTX_get_client_cert_cb(self.ctx().raw()) }.is_some() {
            return Some(Unreadable::ClientCertCallback);
        }
        // SAFETY: live, as `Conn::new` demands; NULL is no data. 255 is no usage (RFC 6698 section 2.1.1): nothing is added, and the
        // answer says whether anything could be (SSL_dane_tlsa_add(3): -1 where DANE is not enabled).
        if unsafe { ffi::SSL_dane_tlsa_add(self.raw(), 255, 0, 0, ptr::null(), 0) } != -1 {
            return Some(Unreadable::Dane);
        }
        // SAFETY: live, as `Conn::new` demands.
        if unsafe { ffi::SSL_ct_is_enabled(self.raw()) } != 0 {
            return Some(Unreadable::CertificateTransparency);
        }
        const LISTS: c_ulong = ffi::X509_V_FLAG_CRL_CHECK | ffi::X509_V_FLAG_CRL_CHECK_ALL;
        (self.verify_flags().iter().any(|flags| flags & LISTS != 0)).then_some(Unreadable::RevocationLists)
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
        let param = self.param();
        let mut out = Vec::new();
        let mut add = |text: *const c_char| {
            // SAFETY: NULL, or a string that lives as long as the connection's parameters are not changed.
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

    /// Every certificate that its store has at this moment, in DER. One that is read from a directory is there once it was needed.
    pub(in crate::tls) fn trusted(self) -> Vec<u8> {
        // SAFETY: the store lives as long as the connection; the result is the caller's.
        let all = Certificates(unsafe { ffi::X509_STORE_get1_all_certs(self.trust_store()) });
        // SAFETY: live until it is dropped.
        let each = unsafe { certificates(all.0) };
        // SAFETY: the stack keeps them.
        each.filter_map(|certificate| unsafe { der_of(certificate) }).flatten().collect()
    }

    /// What of the verified chain the server has not shown, but the client's store had: its last certificate at least. `None` when no
    /// chain was verified.
    pub(in crate::tls) fn anchors(self) -> Option<Vec<Anchor>> {
        // SAFETY: live, as `Conn::new` demands.
        let chain = unsafe { ffi::SSL_get0_verified_chain(self.raw()) };
        // SAFETY: live, as `Conn::new` demands.
        let shown = unsafe { ffi::SSL_get_peer_cert_chain(self.raw()) };
        // SAFETY: the connection keeps both while it is not changed.
        let (verified, is_shown) = (unsafe { certificates(chain) }, |certificate: *mut ffi::X509| {
            // SAFETY: as above.
            let mut each = unsafe { certificates(shown) };
            // SAFETY: both live in the connection's chains.
            each.any(|other| unsafe { ffi::X509_cmp(certificate, other) == 0 })
        });
        let verified: Vec<*mut ffi::X509> = verified.collect();
        let last = *verified.last()?;
        let from_store = verified.into_iter().filter(|each| *each == last || !is_shown(*each));
        let anchor = |each| {
            // SAFETY: the connection keeps its chain.
            let subject = unsafe { subject_of(each) }?;
            // SAFETY: as above.
            Some(Anchor { subject, certificate: unsafe { der_of(each) }? })
        };
        from_store.map(anchor).collect()
    }

    /// Whether its store has this certificate now, for the same uses. A directory of certificates is read.
    pub(in crate::tls) fn trusts(self, subject: &[u8], mut is_same: impl FnMut(&[u8]) -> bool) -> bool {
        let mut from = subject.as_ptr();
        // SAFETY: reads at most as many bytes as said.
        let name = unsafe { ffi::d2i_X509_NAME(ptr::null_mut(), &mut from, subject.len() as libc::c_long) };
        // SAFETY: no preconditions.
        let context = unsafe { ffi::X509_STORE_CTX_new() };
        // SAFETY: the context is new, the store lives as long as the connection; NULL for no certificate and no chain.
        let ready = !name.is_null()
            && !context.is_null()
            && unsafe { ffi::X509_STORE_CTX_init(context, self.trust_store(), ptr::null_mut(), ptr::null_mut()) } == 1;
        let found = match ready {
            // SAFETY: the context was made ready with a store; the result is the caller's.
            true => Certificates(unsafe { ffi::X509_STORE_CTX_get1_certs(context, name) }),
            false => Certificates(ptr::null_mut()),
        };
        // SAFETY: live until it is dropped.
        let mut each = unsafe { certificates(found.0) };
        // SAFETY: the stack keeps them.
        let has = each.any(|certificate| unsafe { der_of(certificate) }.is_some_and(|der| is_same(&der)));
        // SAFETY: made above, freed once; NULL is nothing.
        unsafe { ffi::X509_STORE_CTX_free(context) };
        // SAFETY: made above, freed once; NULL is nothing.
        unsafe { ffi::X509_NAME_free(name) };
        has
    }
}
