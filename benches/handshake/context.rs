//! SSL_CTXs of one setting: protocol version, the server's key, what the client proves itself with.

use std::ptr;

use crate::ffi::{self, must};
use crate::pki::{Identity, Kind};

/// Version, server key and client certificate of a handshake.
#[derive(Clone, Copy)]
pub struct Setting {
    pub tls13: bool,
    pub server: Kind,
    pub client: Option<Kind>,
}

impl Setting {
    pub fn version(self) -> &'static str {
        if self.tls13 {
            "1.3"
        } else {
            "1.2"
        }
    }

    pub fn client_name(self) -> &'static str {
        self.client.map_or("none", Kind::name)
    }
}

/// Everybody's keys and certificates.
pub struct People {
    authority: Identity,
    servers: [Identity; 2],
    clients: [Identity; 2],
}

impl People {
    pub fn new() -> People {
        let authority = Identity::authority();
        let pair = |name: &str| [Kind::P256, Kind::Rsa2048].map(|kind| Identity::issue(kind, name, &authority));
        People { servers: pair("localhost"), clients: pair("a client of some length, as people have names"), authority }
    }
}

/// An SSL_CTX.
pub struct Context(pub *mut ffi::SSL_CTX);

impl Context {
    fn new(method: *const ffi::SSL_METHOD, setting: Setting, identity: Option<&Identity>) -> Context {
        // SAFETY: a static method.
        let ctx = unsafe { ffi::SSL_CTX_new(method) };
        must("SSL_CTX_new", !ctx.is_null());
        let version = if setting.tls13 { ffi::TLS1_3_VERSION } else { ffi::TLS1_2_VERSION };
        // SAFETY: live.
        must("version", unsafe { ffi::SSL_CTX_set_min_proto_version(ctx, version) } == 1);
        // SAFETY: live.
        must("version", unsafe { ffi::SSL_CTX_set_max_proto_version(ctx, version) } == 1);
        if let Some(identity) = identity {
            // SAFETY: live objects; the SSL_CTX takes a reference of its own.
            must("certificate", unsafe { ffi::SSL_CTX_use_certificate(ctx, identity.certificate) } == 1);
            // SAFETY: same.
            must("key", unsafe { ffi::SSL_CTX_use_PrivateKey(ctx, identity.key) } == 1);
        }
        Context(ctx)
    }

    /// A server without any session cache yet, with the session id context that every server with client
    /// authentication needs.
    pub fn server(setting: Setting, people: &People) -> Context {
        // SAFETY: no preconditions.
        let method = unsafe { ffi::TLS_server_method() };
        let server = Context::new(method, setting, Some(&people.servers[setting.server as usize]));
        let name = b"handshake";
        // SAFETY: live; copies that many bytes.
        let set = unsafe { ffi::SSL_CTX_set_session_id_context(server.0, name.as_ptr(), name.len() as u32) };
        must("session id context", set == 1);
        if setting.client.is_some() {
            // SAFETY: live.
            let trusted = unsafe { ffi::SSL_CTX_get_cert_store(server.0) };
            // SAFETY: live; takes a reference of its own.
            must("trust", unsafe { ffi::X509_STORE_add_cert(trusted, people.authority.certificate) } == 1);
            let demand = ffi::SSL_VERIFY_PEER | ffi::SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
            // SAFETY: live; no function of our own.
            unsafe { ffi::SSL_CTX_set_verify(server.0, demand, None) };
        }
        // SAFETY: live. No group is measured for longer than an hour.
        unsafe { ffi::SSL_CTX_set_timeout(server.0, 3_600) };
        server.set_mode(ffi::SSL_SESS_CACHE_OFF);
        server
    }

    pub fn client(setting: Setting, people: &People) -> Context {
        // SAFETY: no preconditions.
        let method = unsafe { ffi::TLS_client_method() };
        Context::new(method, setting, setting.client.map(|kind| &people.clients[kind as usize]))
    }

    /// The session cache mode.
    pub fn set_mode(&self, mode: libc::c_long) {
        // SAFETY: live.
        unsafe { ffi::SSL_CTX_set_session_cache_mode(self.0, mode) };
    }

    /// Sets option bits.
    pub fn set_options(&self, options: u64) {
        // SAFETY: live.
        unsafe { ffi::set_options(self.0, options) };
    }

    /// The server's end of a connection.
    pub fn accept(&self) -> ffi::Connection {
        // SAFETY: live.
        let end = unsafe { ffi::Connection::new(self.0) };
        // SAFETY: live.
        unsafe { ffi::SSL_set_accept_state(end.0) };
        end
    }

    /// The client's end, which asks for a host by name and offers a session.
    pub fn connect(&self, offer: Option<&ffi::Session>) -> ffi::Connection {
        // SAFETY: live.
        let end = unsafe { ffi::Connection::new(self.0) };
        // SAFETY: live.
        unsafe { ffi::SSL_set_connect_state(end.0) };
        let (command, kind) = (ffi::SSL_CTRL_SET_TLSEXT_HOSTNAME, ffi::TLSEXT_NAMETYPE_host_name);
        // SAFETY: live; copies the name.
        let named = unsafe { ffi::SSL_ctrl(end.0, command, kind.into(), c"localhost".as_ptr() as *mut libc::c_void) };
        must("server name", named == 1);
        if let Some(session) = offer {
            // SAFETY: live objects; takes a reference of its own.
            must("SSL_set_session", unsafe { ffi::SSL_set_session(end.0, session.raw()) } == 1);
        }
        end
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once.
        unsafe { ffi::SSL_CTX_free(self.0) };
    }
}

/// Connects two ends through two memory BIOs.
pub fn join(server: &ffi::Connection, client: &ffi::Connection) {
    let pipe = || {
        // SAFETY: no preconditions.
        let method = unsafe { ffi::BIO_s_mem() };
        // SAFETY: a static method.
        let bio = unsafe { ffi::BIO_new(method) };
        must("BIO_new", !bio.is_null());
        bio
    };
    let (up, down) = (pipe(), pipe());
    for (end, from, to) in [(server, up, down), (client, down, up)] {
        for bio in [from, to] {
            // The two ends share each pipe; the references of `BIO_new` go to the server's.
            if ptr::eq(end, client) {
                // SAFETY: live.
                must("BIO_up_ref", unsafe { ffi::BIO_up_ref(bio) } == 1);
            }
        }
        // SAFETY: live objects; takes over one reference of each.
        unsafe { ffi::SSL_set_bio(end.0, from, to) };
    }
}
