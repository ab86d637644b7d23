//! An authority, and certificates it issued, made in memory.

use std::ptr;

use libc::{c_int, c_long};

use crate::ffi::{self, must};

/// Kind of a key pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    P256,
    Rsa2048,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::P256 => "ECDSA P-256",
            Kind::Rsa2048 => "RSA-2048",
        }
    }

    fn generate(self) -> *mut ffi::EVP_PKEY {
        let (null, none) = (ptr::null_mut(), ptr::null());
        let key = match self {
            // SAFETY: "EC" takes the curve's name.
            Kind::P256 => unsafe { ffi::EVP_PKEY_Q_keygen(null, none, c"EC".as_ptr(), c"P-256".as_ptr()) },
            // SAFETY: "RSA" takes the bits as a size_t.
            Kind::Rsa2048 => unsafe { ffi::EVP_PKEY_Q_keygen(null, none, c"RSA".as_ptr(), 2048_usize) },
        };
        must("a key pair", !key.is_null());
        key
    }
}

/// A key pair with its certificate.
pub struct Identity {
    pub key: *mut ffi::EVP_PKEY,
    pub certificate: *mut ffi::X509,
}

impl Identity {
    /// An authority that signs itself.
    pub fn authority() -> Identity {
        let identity = Identity::named(Kind::P256, "authority", 1);
        let (null, id, value) = (ptr::null_mut(), ffi::NID_basic_constraints, c"critical,CA:TRUE");
        // SAFETY: this extension needs neither configuration nor context.
        let extension = unsafe { ffi::X509V3_EXT_nconf_nid(null, ptr::null_mut(), id, value.as_ptr()) };
        must("an extension", !extension.is_null());
        // SAFETY: live objects; the extension is copied.
        must("an extension", unsafe { ffi::X509_add_ext(identity.certificate, extension, -1) } == 1);
        // SAFETY: ours, freed once.
        unsafe { ffi::X509_EXTENSION_free(extension) };
        identity.sign(&identity);
        identity
    }

    /// A key pair of that kind, certified by an authority.
    pub fn issue(kind: Kind, name: &str, authority: &Identity) -> Identity {
        let identity = Identity::named(kind, name, 2);
        identity.sign(authority);
        identity
    }

    fn named(kind: Kind, name: &str, serial: c_long) -> Identity {
        // SAFETY: no preconditions; checked.
        let certificate = unsafe { ffi::X509_new() };
        must("X509_new", !certificate.is_null());
        let identity = Identity { key: kind.generate(), certificate };
        // SAFETY: live objects; 2 stands for X.509 version 3.
        must("version", unsafe { ffi::X509_set_version(certificate, 2) } == 1);
        // SAFETY: the certificate's own serial number.
        let number = unsafe { ffi::X509_get_serialNumber(certificate) };
        // SAFETY: live.
        must("serial number", unsafe { ffi::ASN1_INTEGER_set(number, serial) } == 1);
        // SAFETY: the certificate's own field.
        let from = unsafe { ffi::X509_getm_notBefore(certificate) };
        // SAFETY: live.
        must("validity", !unsafe { ffi::X509_gmtime_adj(from, -86_400) }.is_null());
        // SAFETY: the certificate's own field.
        let to = unsafe { ffi::X509_getm_notAfter(certificate) };
        // SAFETY: live.
        must("validity", !unsafe { ffi::X509_gmtime_adj(to, 86_400 * 365) }.is_null());
        // SAFETY: the certificate's own field.
        let subject = unsafe { ffi::X509_get_subject_name(certificate) };
        for (field, text) in [(c"O", "sesscache"), (c"OU", "benchmarks"), (c"CN", name)] {
            // SAFETY: a live name; the text has the length given.
            let added = unsafe {
                let (utf8, len) = (ffi::MBSTRING_UTF8, text.len() as c_int);
                ffi::X509_NAME_add_entry_by_txt(subject, field.as_ptr(), utf8, text.as_ptr(), len, -1, 0)
            };
            must("a name", added == 1);
        }
        // SAFETY: live objects; the certificate takes a reference of its own.
        must("public key", unsafe { ffi::X509_set_pubkey(certificate, identity.key) } == 1);
        identity
    }

    fn sign(&self, authority: &Identity) {
        // SAFETY: a live certificate.
        let name = unsafe { ffi::X509_get_subject_name(authority.certificate) };
        // SAFETY: live objects; the name is copied.
        must("issuer", unsafe { ffi::X509_set_issuer_name(self.certificate, name) } == 1);
        // SAFETY: no preconditions; a static table.
        let sha256 = unsafe { ffi::EVP_sha256() };
        // SAFETY: live objects.
        must("signature", unsafe { ffi::X509_sign(self.certificate, authority.key, sha256) } > 0);
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; SSL_CTXs have references of their own.
        unsafe { ffi::X509_free(self.certificate) };
        // SAFETY: same.
        unsafe { ffi::EVP_PKEY_free(self.key) };
    }
}
