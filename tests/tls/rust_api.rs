//! The safe API for the contexts of the crate `openssl`.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSession, SslSessionCacheMode, SslStream, SslVerifyMode,
    SslVersion,
};
use openssl::x509::X509;
use sesscache::{Cache, Options, Status};
use support::Scratch;

fn server() -> SslContextBuilder {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a group");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let mut certificate = X509::builder().expect("a certificate");
    certificate.set_pubkey(&key).expect("a key");
    certificate.set_not_before(&Asn1Time::days_from_now(0).expect("a time")).expect("a time");
    certificate.set_not_after(&Asn1Time::days_from_now(1).expect("a time")).expect("a time");
    certificate.sign(&key, MessageDigest::sha256()).expect("a signature");
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("an SSL_CTX");
    context.set_private_key(&key).expect("a key");
    context.set_certificate(&certificate.build()).expect("a certificate");
    context.set_session_id_context(b"rust").expect("a session id context");
    context
}

/// A client that offers the newest session it has.
struct Client {
    context: SslContext,
    newest: Arc<Mutex<Option<SslSession>>>,
}

impl Client {
    fn new(version: SslVersion) -> Client {
        let newest = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&newest);
        let mut context = SslContext::builder(SslMethod::tls_client()).expect("an SSL_CTX");
        context.set_verify(SslVerifyMode::NONE);
        context.set_max_proto_version(Some(version)).expect("a version");
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        context.set_new_session_callback(move |_, session| *keep.lock().expect("one thread") = Some(session));
        Client { context: context.build(), newest }
    }

    /// Whether a connection to this server is resumed; `then` is done by the server before it says goodbye.
    fn resumes(&self, server: &SslContext, then: impl FnOnce(&mut SslStream<UnixStream>) + Send) -> bool {
        let mut ssl = Ssl::new(&self.context).expect("an SSL");
        if let Some(session) = &*self.newest.lock().expect("one thread") {
            // SAFETY: `set_session` asks for a session of the same SSL_CTX: `newest` has none of others.
            unsafe { ssl.set_session(session) }.expect("a session");
        }
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut stream = SslStream::new(Ssl::new(server).expect("an SSL"), there).expect("a stream");
                stream.accept().expect("a handshake");
                then(&mut stream);
                stream.shutdown().expect("a goodbye");
            });
            let mut stream = SslStream::new(ssl, here).expect("a stream");
            stream.connect().expect("a handshake");
            // What stands before the server's goodbye are its tickets.
            assert_eq!(stream.ssl_read(&mut [0]).expect_err("no data").code(), openssl::ssl::ErrorCode::ZERO_RETURN);
            let _ = stream.shutdown();
            stream.ssl().session_reused()
        })
    }
}

fn cache(scratch: &Scratch, name: &str) -> Cache {
    Cache::open(scratch.join(name), &"capacity=4MiB".parse().expect("options")).expect("a cache")
}

#[test]
fn a_forgotten_connection_is_not_resumed() {
    let scratch = Scratch::new("rust-forget");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut context = server();
        cache(&scratch, "store").attach(&mut context).expect("attached");
        let (context, client) = (context.build(), Client::new(version));
        assert!(!client.resumes(&context, |_| ()), "the first connection has nothing to resume");
        assert!(client.resumes(&context, |_| ()), "a session does not resume");
        client.resumes(&context, |stream| sesscache::forget(stream).expect("forgotten"));
        assert!(!client.resumes(&context, |_| ()), "a forgotten connection is resumed");
    }
}

#[test]
fn a_context_has_one_cache_at_a_time() {
    let scratch = Scratch::new("rust-attach");
    let (one, other) = (cache(&scratch, "one"), cache(&scratch, "other"));
    let mut context = server();
    one.attach(&mut context).expect("attached");
    one.attach(&mut context).expect("twice does no harm");
    assert_eq!(other.attach(&mut context).expect_err("two caches").status, Status::Invalid);
    sesscache::detach(&mut context).expect("detached");
    assert_eq!(sesscache::detach(&mut context).expect_err("not attached").status, Status::NotFound);
    other.attach(&mut context).expect("attached");
    let mut own = server();
    own.set_new_session_callback(|_, _| ());
    assert_eq!(other.attach(&mut own).expect_err("callbacks of its own").status, Status::Invalid);
}

#[test]
fn options_are_checked_without_a_directory() {
    sesscache::check(&Options::default()).expect("the defaults are acceptable");
    let error = sesscache::check(&"owner=nobody-of-this-name".parse().expect("options")).expect_err("no such user");
    assert_eq!(error.status, Status::Invalid);
    assert_eq!(sesscache::version(), env!("CARGO_PKG_VERSION"));
}
