//! Random bytes, wiping, and AES-256-GCM with a kept key schedule, from the host's own libcrypto.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_int;
use openssl_sys as ffi;

extern "C" {
    fn OPENSSL_cleanse(ptr: *mut libc::c_void, len: libc::size_t);
    fn EVP_CipherFinal_ex(ctx: *mut ffi::EVP_CIPHER_CTX, out: *mut u8, len: *mut c_int) -> c_int;
}

/// Bytes of a sealing key.
pub(crate) const KEY: usize = 32;
/// Bytes of a GCM nonce (NIST SP 800-38D: 96 bits).
pub(crate) const NONCE: usize = 12;
/// Bytes of a GCM tag.
pub(crate) const TAG: usize = 16;

/// Fills `out` from the kernel's generator. False when it has none to give.
///
/// Not from OpenSSL's: its lock may be held by another thread at fork(2), and the child would wait for it for ever.
pub(crate) fn random(out: &mut [u8]) -> bool {
    let mut rest = out;
    while !rest.is_empty() {
        // SAFETY: getrandom wants room for as many bytes as said: the slice.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => rest = &mut rest[n..],
            Err(_) if super::errno::get() == libc::EINTR => {}
            Err(_) => return false,
        }
    }
    true
}

/// Overwrites a secret in a way that the compiler may not drop.
pub(crate) fn cleanse(secret: &mut [u8]) {
    // SAFETY: OPENSSL_cleanse wants as many writable bytes as said: the slice.
    unsafe { OPENSSL_cleanse(secret.as_mut_ptr().cast(), secret.len()) }
}

/// The version of the libcrypto in use, such as 3.0.19.
pub(crate) fn openssl_version() -> String {
    // SAFETY: OpenSSL_version_num has no requirements.
    let number = unsafe { ffi::OpenSSL_version_num() };
    // OPENSSL_VERSION_NUMBER(3): 0xMNN00PP0.
    format!("{}.{}.{}", number >> 28, number >> 20 & 0xFF, number >> 4 & 0xFF)
}

/// SHA-256, to name an id without showing it.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    // SAFETY: SHA256 wants as many bytes as said, and room for 32.
    unsafe { ffi::SHA256(data.as_ptr(), data.len(), out.as_mut_ptr()) };
    out
}

/// The implementation of AES-256-GCM, looked up once in the life of a process and its children: OpenSSL 3 otherwise looks
/// it up for every context, which costs a forked child more than opening a record. Kept for ever, as the library is.
fn aes_256_gcm() -> *const ffi::EVP_CIPHER {
    static FETCHED: AtomicPtr<ffi::EVP_CIPHER> = AtomicPtr::new(ptr::null_mut());
    let known = FETCHED.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    // SAFETY: EVP_CIPHER_fetch wants a NUL-terminated name; NULL is the default library context, and no properties.
    let fetched = unsafe { ffi::EVP_CIPHER_fetch(ptr::null_mut(), c"AES-256-GCM".as_ptr(), ptr::null()) };
    if fetched.is_null() {
        // SAFETY: EVP_aes_256_gcm has no requirements; the result is a static table.
        return unsafe { ffi::EVP_aes_256_gcm() };
    }
    match FETCHED.compare_exchange(ptr::null_mut(), fetched, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fetched,
        Err(faster) => {
            // SAFETY: EVP_CIPHER_free wants a fetched cipher that nobody uses: this function fetched it, and gave it to nobody.
            unsafe { ffi::EVP_CIPHER_free(fetched) };
            faster
        }
    }
}

/// One direction of AES-256-GCM under one key. Setting the key costs ten times the encryption of a session, so it is kept.
pub(crate) struct Cipher {
    ctx: *mut ffi::EVP_CIPHER_CTX,
}

// SAFETY: an EVP_CIPHER_CTX belongs to no thread, and is used through `&mut` alone.
unsafe impl Send for Cipher {}

impl Cipher {
    /// A cipher that seals.
    pub(crate) fn sealing(key: &[u8; KEY]) -> Option<Cipher> {
        Cipher::new(key, 1)
    }

    /// A cipher that opens.
    pub(crate) fn opening(key: &[u8; KEY]) -> Option<Cipher> {
        Cipher::new(key, 0)
    }

    fn new(key: &[u8; KEY], encrypt: c_int) -> Option<Cipher> {
        // SAFETY: EVP_CIPHER_CTX_new has no requirements.
        let ctx = unsafe { ffi::EVP_CIPHER_CTX_new() };
        if ctx.is_null() {
            return None;
        }
        let cipher = Cipher { ctx };
        // SAFETY: EVP_CipherInit_ex wants a live context and a key of the cipher's 32 bytes; NULL for the nonce means "later".
        let ok =
            unsafe { ffi::EVP_CipherInit_ex(ctx, aes_256_gcm(), ptr::null_mut(), key.as_ptr(), ptr::null(), encrypt) };
        (ok == 1).then_some(cipher)
    }

    /// Encrypts `plain` into `out` (same length) and returns the tag over `aad` and the ciphertext.
    pub(crate) fn seal(&mut self, nonce: &[u8; NONCE], aad: &[u8], plain: &[u8], out: &mut [u8]) -> Option<[u8; TAG]> {
        let mut tag = [0_u8; TAG];
        let ok = self.begin(nonce, aad)
            && self.update(plain, out)
            && self.end()
            && self.tag(ffi::EVP_CTRL_GCM_GET_TAG, &mut tag);
        ok.then_some(tag)
    }

    /// Decrypts `sealed` into `out` (same length). False, with `out` wiped, unless the tag proves every byte.
    pub(crate) fn open(
        &mut self,
        nonce: &[u8; NONCE],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG],
        out: &mut [u8],
    ) -> bool {
        let mut tag = *tag;
        let ok = self.begin(nonce, aad)
            && self.update(sealed, out)
            && self.tag(ffi::EVP_CTRL_GCM_SET_TAG, &mut tag)
            && self.end();
        if !ok {
            cleanse(out);
        }
        ok
    }

    fn begin(&mut self, nonce: &[u8; NONCE], aad: &[u8]) -> bool {
        // SAFETY: EVP_CipherInit_ex wants a nonce of GCM's 12 bytes; NULL and -1 keep the cipher, its key and its direction.
        let begun =
            unsafe { ffi::EVP_CipherInit_ex(self.ctx, ptr::null(), ptr::null_mut(), ptr::null(), nonce.as_ptr(), -1) };
        let (mut len, given) = (0, aad.len() as c_int);
        // SAFETY: EVP_CipherUpdate reads as many bytes as said, which `aad` has; NULL marks them as associated data.
        begun == 1 && unsafe { ffi::EVP_CipherUpdate(self.ctx, ptr::null_mut(), &mut len, aad.as_ptr(), given) } == 1
    }

    fn update(&mut self, from: &[u8], to: &mut [u8]) -> bool {
        assert_eq!(from.len(), to.len());
        let (mut len, given) = (0, from.len() as c_int);
        // SAFETY: EVP_CipherUpdate wants room for what comes out: in GCM, a stream mode, as many bytes as go in.
        unsafe { ffi::EVP_CipherUpdate(self.ctx, to.as_mut_ptr(), &mut len, from.as_ptr(), given) == 1 }
    }

    /// Asks for the tag, or says which it must be.
    fn tag(&mut self, what: c_int, tag: &mut [u8; TAG]) -> bool {
        // SAFETY: GET_TAG writes and SET_TAG reads as many bytes as said, which the tag has.
        unsafe { ffi::EVP_CIPHER_CTX_ctrl(self.ctx, what, TAG as c_int, tag.as_mut_ptr().cast()) == 1 }
    }

    fn end(&mut self) -> bool {
        let (mut rest, mut len) = ([0_u8; TAG], 0);
        // SAFETY: EVP_CipherFinal_ex wants room for a block, though a stream mode writes nothing.
        unsafe { EVP_CipherFinal_ex(self.ctx, rest.as_mut_ptr(), &mut len) == 1 }
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        // SAFETY: EVP_CIPHER_CTX_free wants a context of EVP_CIPHER_CTX_new, once; OpenSSL wipes the key schedule.
        unsafe { ffi::EVP_CIPHER_CTX_free(self.ctx) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let key = [7; KEY];
        let nonce = [9; NONCE];
        let plain = b"a session";
        let mut sealed = [0; 9];
        let tag = Cipher::sealing(&key).unwrap().seal(&nonce, b"ac", plain, &mut sealed).unwrap();
        let mut cipher = Cipher::opening(&key).unwrap();
        let mut out = [0; 9];
        assert!(cipher.open(&nonce, b"ac", &sealed, &tag, &mut out));
        assert_eq!(&out, plain);
        assert!(!cipher.open(&nonce, b"bc", &sealed, &tag, &mut out), "other associated data must not open");
        assert_eq!(out, [0; 9], "what did not open is wiped");
        sealed[3] ^= 1;
        assert!(!cipher.open(&nonce, b"ac", &sealed, &tag, &mut out), "a flipped bit must not open");
    }
}
