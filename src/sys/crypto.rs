//! Random bytes, wiping, and AES-256-GCM with a kept key schedule, from the host's own libcrypto.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use openssl_sys as ffi;

extern "C" {
    fn OPENSSL_cleanse(ptr: *mut libc::c_void, len: libc::size_t);
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
        // SAFETY: getrandom writes at most `len` bytes at the slice.
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
    // SAFETY: OPENSSL_cleanse writes exactly `len` bytes at the slice.
    unsafe { OPENSSL_cleanse(secret.as_mut_ptr().cast(), secret.len()) }
}

/// The version of the libcrypto in use, as 3.0.19.
pub(crate) fn openssl_version() -> String {
    // SAFETY: has no preconditions.
    let number = unsafe { ffi::OpenSSL_version_num() };
    // OPENSSL_VERSION_NUMBER(3): 0xMNN00PP0.
    format!("{}.{}.{}", number >> 28, number >> 20 & 0xFF, number >> 4 & 0xFF)
}

/// SHA-256, to name an id without showing it.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    // SAFETY: SHA256 reads `len` bytes and writes 32.
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
    // SAFETY: NULL is the default library context and no properties; the name is NUL-terminated.
    let fetched = unsafe { ffi::EVP_CIPHER_fetch(ptr::null_mut(), c"AES-256-GCM".as_ptr(), ptr::null()) };
    if fetched.is_null() {
        // SAFETY: no preconditions; the result is a static table.
        return unsafe { ffi::EVP_aes_256_gcm() };
    }
    match FETCHED.compare_exchange(ptr::null_mut(), fetched, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fetched,
        Err(faster) => {
            // SAFETY: ours, and nobody else has seen it.
            unsafe { ffi::EVP_CIPHER_free(fetched) };
            faster
        }
    }
}

/// One direction of AES-256-GCM under one key. Setting the key costs ten times the encryption of a session, so it is kept.
pub(crate) struct Cipher {
    ctx: *mut ffi::EVP_CIPHER_CTX,
}

impl Cipher {
    /// A cipher that seals.
    pub(crate) fn sealing(key: &[u8; KEY]) -> Option<Cipher> {
        Cipher::new(key, ffi::EVP_EncryptInit_ex)
    }

    /// A cipher that opens.
    pub(crate) fn opening(key: &[u8; KEY]) -> Option<Cipher> {
        Cipher::new(key, ffi::EVP_DecryptInit_ex)
    }

    fn new(
        key: &[u8; KEY],
        init: unsafe extern "C" fn(
            *mut ffi::EVP_CIPHER_CTX,
            *const ffi::EVP_CIPHER,
            *mut ffi::ENGINE,
            *const u8,
            *const u8,
        ) -> libc::c_int,
    ) -> Option<Cipher> {
        // SAFETY: no preconditions; NULL on failure is checked.
        let ctx = unsafe { ffi::EVP_CIPHER_CTX_new() };
        if ctx.is_null() {
            return None;
        }
        let cipher = Cipher { ctx };
        // SAFETY: the context is live, the key has the 32 bytes that AES-256 reads, a NULL nonce means "later".
        let ok = unsafe { init(ctx, aes_256_gcm(), ptr::null_mut(), key.as_ptr(), ptr::null()) };
        (ok == 1).then_some(cipher)
    }

    /// Encrypts `plain` into `out` (same length) and returns the tag over `aad` and the ciphertext.
    pub(crate) fn seal(&mut self, nonce: &[u8; NONCE], aad: &[u8], plain: &[u8], out: &mut [u8]) -> Option<[u8; TAG]> {
        assert_eq!(plain.len(), out.len());
        let mut len = 0;
        let mut tag = [0_u8; TAG];
        // SAFETY: the context has its key; the nonce has GCM's default 12 bytes; NULLs mean "keep".
        let mut ok =
            unsafe { ffi::EVP_EncryptInit_ex(self.ctx, ptr::null(), ptr::null_mut(), ptr::null(), nonce.as_ptr()) }
                == 1;
        // SAFETY: a NULL output marks associated data; `len` bytes are read.
        ok &= unsafe {
            ffi::EVP_EncryptUpdate(self.ctx, ptr::null_mut(), &mut len, aad.as_ptr(), aad.len() as libc::c_int)
        } == 1;
        // SAFETY: GCM is a stream mode: exactly as many bytes come out as go in, and `out` has them.
        ok &= unsafe {
            ffi::EVP_EncryptUpdate(self.ctx, out.as_mut_ptr(), &mut len, plain.as_ptr(), plain.len() as libc::c_int)
        } == 1;
        // SAFETY: a stream mode writes nothing at the end; the pointer is valid all the same.
        ok &= unsafe { ffi::EVP_EncryptFinal_ex(self.ctx, tag.as_mut_ptr(), &mut len) } == 1;
        // SAFETY: GET_TAG writes the 16 bytes asked for.
        ok &= unsafe {
            ffi::EVP_CIPHER_CTX_ctrl(self.ctx, ffi::EVP_CTRL_GCM_GET_TAG, TAG as libc::c_int, tag.as_mut_ptr().cast())
        } == 1;
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
        assert_eq!(sealed.len(), out.len());
        let mut len = 0;
        let mut tag = *tag;
        // SAFETY: as in `seal`.
        let mut ok =
            unsafe { ffi::EVP_DecryptInit_ex(self.ctx, ptr::null(), ptr::null_mut(), ptr::null(), nonce.as_ptr()) }
                == 1;
        // SAFETY: as in `seal`.
        ok &= unsafe {
            ffi::EVP_DecryptUpdate(self.ctx, ptr::null_mut(), &mut len, aad.as_ptr(), aad.len() as libc::c_int)
        } == 1;
        // SAFETY: as in `seal`.
        ok &= unsafe {
            ffi::EVP_DecryptUpdate(self.ctx, out.as_mut_ptr(), &mut len, sealed.as_ptr(), sealed.len() as libc::c_int)
        } == 1;
        // SAFETY: SET_TAG reads the 16 bytes given.
        ok &= unsafe {
            ffi::EVP_CIPHER_CTX_ctrl(self.ctx, ffi::EVP_CTRL_GCM_SET_TAG, TAG as libc::c_int, tag.as_mut_ptr().cast())
        } == 1;
        let mut end = [0_u8; TAG];
        // SAFETY: a stream mode writes nothing at the end; the pointer is valid all the same.
        ok &= unsafe { ffi::EVP_DecryptFinal_ex(self.ctx, end.as_mut_ptr(), &mut len) } == 1;
        if !ok {
            cleanse(out);
        }
        ok
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        // SAFETY: the context came from EVP_CIPHER_CTX_new and is freed once; OpenSSL wipes the key schedule.
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
