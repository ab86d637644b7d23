//! Random bytes, wiping, and AES-256-GCM with a kept key schedule, from the host's own libcrypto.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_int;
use openssl_sys as ffi;

extern "C" {
    fn OPENSSL_cleanse(ptr: *mut libc::c_void, len: libc::size_t);
    fn OSSL_LIB_CTX_set0_default(context: *mut ffi::OSSL_LIB_CTX) -> *mut ffi::OSSL_LIB_CTX;
    fn ERR_set_mark() -> c_int;
    fn ERR_pop_to_mark() -> c_int;
    fn EVP_Digest(
        data: *const libc::c_void,
        count: libc::size_t,
        out: *mut u8,
        size: *mut libc::c_uint,
        digest: *const ffi::EVP_MD,
        engine: *mut libc::c_void,
    ) -> c_int;
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

/// SHA-256. `None` where [`is_ready`] says false.
pub(crate) fn sha256(data: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0_u8; 32];
    let digest = algorithms()?.sha256;
    // SAFETY: EVP_Digest reads as many bytes as said, writes the 32 of SHA-256, and takes NULL for their number and the engine.
    let ok = unsafe {
        EVP_Digest(data.as_ptr().cast(), data.len(), out.as_mut_ptr(), ptr::null_mut(), digest, ptr::null_mut())
    };
    (ok == 1).then_some(out)
}

/// Whether OpenSSL has what is needed here.
pub(crate) fn is_ready() -> bool {
    algorithms().is_some()
}

/// What is used of OpenSSL. Looked up once in the life of a process and its children: OpenSSL 3 otherwise looks it up for every
/// context, which costs a forked child more than opening a record. Kept for ever, as the library is.
struct Algorithms {
    aes_256_gcm: *mut ffi::EVP_CIPHER,
    sha256: *mut ffi::EVP_MD,
}

impl Algorithms {
    /// Of this library context; NULL is the host's default one.
    fn fetch(context: *mut ffi::OSSL_LIB_CTX) -> Option<Algorithms> {
        // SAFETY: EVP_CIPHER_fetch wants a live context or NULL, a NUL-terminated name, and NULL for no properties.
        let aes_256_gcm = unsafe { ffi::EVP_CIPHER_fetch(context, c"AES-256-GCM".as_ptr(), ptr::null()) };
        // SAFETY: as above.
        let sha256 = unsafe { ffi::EVP_MD_fetch(context, c"SHA2-256".as_ptr(), ptr::null()) };
        let fetched = Algorithms { aes_256_gcm, sha256 };
        (!aes_256_gcm.is_null() && !sha256.is_null()).then_some(fetched)
    }
}

impl Drop for Algorithms {
    fn drop(&mut self) {
        // SAFETY: EVP_CIPHER_free wants NULL or a fetched cipher that nobody uses: `fetch` fetched it, and lent it to nobody.
        unsafe { ffi::EVP_CIPHER_free(self.aes_256_gcm) };
        // SAFETY: as above.
        unsafe { ffi::EVP_MD_free(self.sha256) };
    }
}

fn algorithms() -> Option<&'static Algorithms> {
    static FETCHED: AtomicPtr<Algorithms> = AtomicPtr::new(ptr::null_mut());
    let mut known = FETCHED.load(Ordering::Acquire);
    if known.is_null() {
        // SAFETY: no preconditions. What fails leaves errors behind, which are not the host's to find.
        unsafe { ERR_set_mark() };
        let fetched = Algorithms::fetch(ptr::null_mut()).or_else(|| Algorithms::fetch(own_context()?));
        // SAFETY: no preconditions.
        unsafe { ERR_pop_to_mark() };
        let made = Box::into_raw(Box::new(fetched?));
        known = match FETCHED.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(faster) => {
                // SAFETY: from Box::into_raw above, and given to nobody.
                drop(unsafe { Box::from_raw(made) });
                faster
            }
        };
    }
    // SAFETY: what FETCHED holds was boxed above and is never freed.
    unsafe { known.as_ref() }
}

/// A library context of our own, with OpenSSL's default provider, which is part of libcrypto: the host's default one is empty
/// where all that the host does is in another, and has nothing where it demands a FIPS module that is not there. Kept for ever.
fn own_context() -> Option<*mut ffi::OSSL_LIB_CTX> {
    static MADE: AtomicPtr<ffi::OSSL_LIB_CTX> = AtomicPtr::new(ptr::null_mut());
    let known = MADE.load(Ordering::Acquire);
    if !known.is_null() {
        return Some(known);
    }
    // SAFETY: OSSL_LIB_CTX_new has no requirements. It reads no configuration.
    let made = unsafe { ffi::OSSL_LIB_CTX_new() };
    if made.is_null() {
        return None;
    }
    // SAFETY: wants a live context and a NUL-terminated name.
    let provider = unsafe { ffi::OSSL_PROVIDER_load(made, c"default".as_ptr()) };
    let set = || MADE.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
    let faster = match (!provider.is_null()).then(set) {
        Some(Ok(_)) => return Some(made),
        Some(Err(faster)) => Some(faster),
        None => None,
    };
    // SAFETY: made above, and given to nobody.
    unsafe { ffi::OSSL_LIB_CTX_free(made) };
    faster
}

/// Calls `f` while the library context of our own stands for the default one in this thread. `None` where there is none.
pub(crate) fn in_own_context<T>(f: impl FnOnce() -> T) -> Option<T> {
    let own = own_context()?;
    // SAFETY: wants a context that stays: ours is never freed.
    let before = unsafe { OSSL_LIB_CTX_set0_default(own) };
    if before.is_null() {
        return None;
    }
    let result = f();
    // SAFETY: the one that stood there, of which nobody but this thread's caller disposes.
    unsafe { OSSL_LIB_CTX_set0_default(before) };
    Some(result)
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
        let algorithm = algorithms()?.aes_256_gcm;
        // SAFETY: EVP_CIPHER_CTX_new has no requirements.
        let ctx = unsafe { ffi::EVP_CIPHER_CTX_new() };
        if ctx.is_null() {
            return None;
        }
        let cipher = Cipher { ctx };
        // SAFETY: EVP_CipherInit_ex wants a live context and a key of the cipher's 32 bytes; NULL for the nonce means "later".
        let ok = unsafe { ffi::EVP_CipherInit_ex(ctx, algorithm, ptr::null_mut(), key.as_ptr(), ptr::null(), encrypt) };
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
