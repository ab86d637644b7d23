//! OpenSSL functions that openssl-sys does not declare. Prototypes as in ssl.h and err.h, the same from 3.0 to 4.0.

use libc::{c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};
pub(crate) use openssl_sys::*;

/// See SSL_CTX_sess_set_new_cb(3).
pub(crate) type NewCb = unsafe extern "C" fn(*mut SSL, *mut SSL_SESSION) -> c_int;
/// See SSL_CTX_sess_set_get_cb(3).
pub(crate) type GetCb = unsafe extern "C" fn(*mut SSL, *const c_uchar, c_int, *mut c_int) -> *mut SSL_SESSION;
/// See SSL_CTX_sess_set_remove_cb(3).
pub(crate) type RemoveCb = unsafe extern "C" fn(*mut SSL_CTX, *mut SSL_SESSION);
/// See SSL_CTX_set_generate_session_id(3).
pub(crate) type GenerateCb = unsafe extern "C" fn(*mut SSL, *mut c_uchar, *mut c_uint) -> c_int;
/// See CRYPTO_get_ex_new_index(3).
pub(crate) type ExFree =
    unsafe extern "C" fn(*mut c_void, *mut c_void, *mut CRYPTO_EX_DATA, c_int, c_long, *mut c_void);
/// See CRYPTO_get_ex_new_index(3).
pub(crate) type ExDup = unsafe extern "C" fn(
    *mut CRYPTO_EX_DATA,
    *const CRYPTO_EX_DATA,
    *mut *mut c_void,
    c_int,
    c_long,
    *mut c_void,
) -> c_int;

/// ssl.h.
pub(crate) const SSL_OP_NO_ANTI_REPLAY: u64 = 0x0100_0000;
/// ssl.h.
pub(crate) const SSL_OP_NO_TICKET_64: u64 = 0x0000_4000;
/// ssl.h.
pub(crate) const SSL_CTRL_GET_SESS_CACHE_MODE: c_int = 45;
/// ssl.h.
pub(crate) const SSL_CTRL_SESS_ACCEPT_GOOD: c_int = 25;
/// ssl.h.
pub(crate) const SSL_CTRL_SESS_HIT: c_int = 27;
/// err.h.
pub(crate) const ERR_LIB_SSL: c_int = 20;
/// sslerr.h.
pub(crate) const SSL_R_UNEXPECTED_EOF_WHILE_READING: c_int = 294;
/// crypto.h.
pub(crate) const CRYPTO_EX_INDEX_SSL: c_int = 0;
/// crypto.h.
pub(crate) const CRYPTO_EX_INDEX_SSL_CTX: c_int = 1;
/// crypto.h.
pub(crate) const CRYPTO_EX_INDEX_SSL_SESSION: c_int = 2;
/// What SSL_version(3) says of a QUIC connection (quic.h: OSSL_QUIC1_VERSION).
pub(crate) const OSSL_QUIC1_VERSION: c_int = 1;
/// ssl.h.
pub(crate) const SSL_OP_NO_EXTENDED_MASTER_SECRET: u64 = 0x1;
/// ssl.h.
pub(crate) const SSL_CTRL_GET_TOTAL_RENEGOTIATIONS: c_int = 12;
/// ssl.h: a cipher that both sides have.
pub(crate) const SSL_SECOP_CIPHER_SHARED: c_int = 2 | 1 << 16;
/// ssl.h: SSL_get0_verify_cert_store(3).
pub(crate) const SSL_CTRL_GET_VERIFY_CERT_STORE: c_int = 137;
/// ssl.h: SSL_get_tlsext_status_type(3).
pub(crate) const SSL_CTRL_GET_TLSEXT_STATUS_REQ_TYPE: c_int = 127;
/// tls1.h: SSL_CTX_get_tlsext_status_cb(3).
pub(crate) const SSL_CTRL_GET_TLSEXT_STATUS_REQ_CB: c_int = 128;
/// x509_vfy.h.
pub(crate) const X509_V_FLAG_CRL_CHECK: c_ulong = 0x4;
/// x509_vfy.h.
pub(crate) const X509_V_FLAG_CRL_CHECK_ALL: c_ulong = 0x8;

/// tls1.h: the early_data extension.
pub(crate) const TLSEXT_TYPE_EARLY_DATA: c_uint = 42;
/// tls1.h: the cookie extension.
pub(crate) const TLSEXT_TYPE_COOKIE: c_uint = 44;
/// tls1.h: the server_name extension.
pub(crate) const TLSEXT_TYPE_SERVER_NAME: c_uint = 0;

/// A function that is only compared with NULL.
pub(crate) type AnyFunction = unsafe extern "C" fn();
/// See SSL_CTX_set_verify(3).
pub(crate) type VerifyCb = unsafe extern "C" fn(c_int, *mut X509_STORE_CTX) -> c_int;
/// See SSL_CTX_set_client_cert_cb(3).
pub(crate) type ClientCertCb = unsafe extern "C" fn(*mut SSL, *mut *mut X509, *mut *mut EVP_PKEY) -> c_int;
/// See SSL_CTX_set_security_callback(3).
pub(crate) type SecurityCb =
    unsafe extern "C" fn(*const SSL, *const SSL_CTX, c_int, c_int, c_int, *mut c_void, *mut c_void) -> c_int;

extern "C" {
    pub(crate) fn SSL_get_security_callback(ssl: *const SSL) -> Option<SecurityCb>;
    pub(crate) fn SSL_get_security_level(ssl: *const SSL) -> c_int;
    pub(crate) fn SSL_get_default_timeout(ssl: *const SSL) -> c_long;
    pub(crate) fn SSL_get0_security_ex_data(ssl: *const SSL) -> *mut c_void;
    pub(crate) fn SSL_get_ciphers(ssl: *const SSL) -> *mut stack_st_SSL_CIPHER;
    pub(crate) fn SSL_SESSION_get0_cipher(s: *const SSL_SESSION) -> *const SSL_CIPHER;
    pub(crate) fn X509_get0_pubkey(x: *const X509) -> *mut EVP_PKEY;
    pub(crate) fn X509_get0_notAfter(x: *const X509) -> *const ASN1_TIME;
    pub(crate) fn ASN1_TIME_to_tm(s: *const ASN1_TIME, tm: *mut libc::tm) -> c_int;
    pub(crate) fn SSL_CTX_sess_get_new_cb(ctx: *mut SSL_CTX) -> Option<NewCb>;
    pub(crate) fn SSL_CTX_sess_get_get_cb(ctx: *mut SSL_CTX) -> Option<GetCb>;
    pub(crate) fn SSL_CTX_sess_get_remove_cb(ctx: *mut SSL_CTX) -> Option<RemoveCb>;
    pub(crate) fn SSL_CTX_set_generate_session_id(ctx: *mut SSL_CTX, cb: Option<GenerateCb>) -> c_int;
    pub(crate) fn SSL_CTX_get_timeout(ctx: *const SSL_CTX) -> c_long;
    pub(crate) fn SSL_CTX_set_timeout(ctx: *mut SSL_CTX, t: c_long) -> c_long;
    pub(crate) fn SSL_CTX_get_ssl_method(ctx: *const SSL_CTX) -> *const SSL_METHOD;
    pub(crate) fn SSL_get_options(ssl: *const SSL) -> u64;
    #[link_name = "SSL_set_options"]
    pub(crate) fn set_options(ssl: *mut SSL, bits: u64) -> u64;
    #[link_name = "SSL_clear_options"]
    pub(crate) fn clear_options(ssl: *mut SSL, bits: u64) -> u64;
    pub(crate) fn SSL_set_generate_session_id(ssl: *mut SSL, cb: Option<GenerateCb>) -> c_int;
    pub(crate) fn SSL_get_verify_mode(ssl: *const SSL) -> c_int;
    pub(crate) fn SSL_SESSION_set1_id(s: *mut SSL_SESSION, sid: *const c_uchar, len: c_uint) -> c_int;
    pub(crate) fn SSL_SESSION_get0_id_context(s: *const SSL_SESSION, len: *mut c_uint) -> *const c_uchar;
    pub(crate) fn SSL_SESSION_set_timeout(s: *mut SSL_SESSION, t: c_long) -> c_long;
    pub(crate) fn SSL_SESSION_set_time(s: *mut SSL_SESSION, t: c_long) -> c_long;
    pub(crate) fn SSL_SESSION_set1_master_key(s: *mut SSL_SESSION, key: *const c_uchar, len: usize) -> c_int;
    pub(crate) fn X509_get_ex_data(x: *const X509, idx: c_int) -> *mut c_void;
    pub(crate) fn SSL_SESSION_is_resumable(s: *const SSL_SESSION) -> c_int;
    pub(crate) fn SSL_SESSION_set_ex_data(s: *mut SSL_SESSION, idx: c_int, data: *mut c_void) -> c_int;
    pub(crate) fn SSL_SESSION_get_ex_data(s: *const SSL_SESSION, idx: c_int) -> *mut c_void;
    #[link_name = "CRYPTO_get_ex_new_index"]
    pub(crate) fn new_ex_index(
        class: c_int,
        argl: c_long,
        argp: *mut c_void,
        new: *const c_void,
        dup: Option<ExDup>,
        free: Option<ExFree>,
    ) -> c_int;
    pub(crate) fn SSL_SESSION_dup(s: *const SSL_SESSION) -> *mut SSL_SESSION;
    pub(crate) fn SSL_SESSION_get0_peer(s: *mut SSL_SESSION) -> *mut X509;
    pub(crate) fn ERR_set_mark() -> c_int;
    pub(crate) fn ERR_pop_to_mark() -> c_int;
    pub(crate) fn SSL_CTX_new(method: *const SSL_METHOD) -> *mut SSL_CTX;
    #[link_name = "SSL_get_servername"]
    pub(crate) fn servername(ssl: *const SSL, kind: c_int) -> *const c_char;
    pub(crate) fn SSL_in_before(ssl: *const SSL) -> c_int;
    pub(crate) fn SSL_SESSION_get_ticket_lifetime_hint(s: *const SSL_SESSION) -> c_ulong;
    pub(crate) fn SSL_get_verify_depth(ssl: *const SSL) -> c_int;
    pub(crate) fn SSL_get_verify_callback(ssl: *const SSL) -> Option<VerifyCb>;
    pub(crate) fn SSL_CTX_get_client_cert_cb(ctx: *mut SSL_CTX) -> Option<ClientCertCb>;
    pub(crate) fn SSL_dane_tlsa_add(
        ssl: *mut SSL,
        usage: u8,
        selector: u8,
        kind: u8,
        data: *const c_uchar,
        len: usize,
    ) -> c_int;
    pub(crate) fn SSL_ct_is_enabled(ssl: *const SSL) -> c_int;
    pub(crate) fn SSL_CIPHER_get_id(cipher: *const SSL_CIPHER) -> u32;
    pub(crate) fn X509_VERIFY_PARAM_get_depth(param: *const X509_VERIFY_PARAM) -> c_int;
    pub(crate) fn X509_VERIFY_PARAM_get_time(param: *const X509_VERIFY_PARAM) -> libc::time_t;
    pub(crate) fn X509_VERIFY_PARAM_get_inh_flags(param: *const X509_VERIFY_PARAM) -> u32;
    pub(crate) fn X509_VERIFY_PARAM_get0_host(param: *mut X509_VERIFY_PARAM, n: c_int) -> *const c_char;
    pub(crate) fn X509_VERIFY_PARAM_get_hostflags(param: *const X509_VERIFY_PARAM) -> c_uint;
    pub(crate) fn X509_VERIFY_PARAM_get0_email(param: *mut X509_VERIFY_PARAM) -> *const c_char;
    pub(crate) fn X509_VERIFY_PARAM_get1_ip_asc(param: *mut X509_VERIFY_PARAM) -> *mut c_char;
    pub(crate) fn X509_STORE_get0_param(store: *const X509_STORE) -> *mut X509_VERIFY_PARAM;
    pub(crate) fn X509_STORE_CTX_get0_param(ctx: *const X509_STORE_CTX) -> *mut X509_VERIFY_PARAM;
    pub(crate) fn X509_STORE_CTX_set_default(ctx: *mut X509_STORE_CTX, name: *const c_char) -> c_int;
    pub(crate) fn X509_VERIFY_PARAM_set1(to: *mut X509_VERIFY_PARAM, from: *const X509_VERIFY_PARAM) -> c_int;
    pub(crate) fn SSL_CTX_get_security_callback(ctx: *const SSL_CTX) -> Option<SecurityCb>;
    pub(crate) fn SSL_CIPHER_get_kx_nid(cipher: *const SSL_CIPHER) -> c_int;
    pub(crate) fn X509_STORE_get_verify(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_verify_cb(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_get_issuer(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_check_issued(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_check_revocation(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_get_crl(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_check_crl(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_cert_crl(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_check_policy(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_lookup_certs(store: *const X509_STORE) -> Option<AnyFunction>;
    pub(crate) fn X509_STORE_get_lookup_crls(store: *const X509_STORE) -> Option<AnyFunction>;
}
