//! A prefork TLS server in which a client resumes in every process.
//!
//! Run:    `cargo run --example prefork --features openssl -- DIRECTORY [PROCESSES [CONNECTIONS]]`
//! Expect: a full handshake with the first connection, and "resumed" with all others, whichever process takes them. Each
//! process serves CONNECTIONS of them, by default one, so that the next is for another process.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, process};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslSession, SslSessionCacheMode, SslStream, SslVerifyMode,
};
use openssl::x509::{X509Builder, X509};
use sesscache::Cache;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server processes, and the client that visits them.
pub fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().ok_or("usage: prefork DIRECTORY [PROCESSES [CONNECTIONS]]")?;
    let processes: usize = arguments.next().map_or(Ok(4), |number| number.parse())?;
    let connections: usize = arguments.next().map_or(Ok(1), |number| number.parse())?;

    // Once, before the fork: the processes inherit the SSL_CTX with the cache that it is attached to.
    let context = server_context(&directory)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut children = Vec::new();
    for _ in 0..processes {
        // SAFETY: fork(2) asks that a child of a process with several threads calls async-signal-safe functions only; this
        // process has one thread.
        match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error().into()),
            0 => {
                let served = serve(&listener, &context, connections);
                process::exit(served.map_or_else(|error| report(&*error), |()| 0));
            }
            child => children.push(child),
        }
    }
    visit(&listener, processes * connections)?;
    for child in children {
        let mut status = 0;
        // SAFETY: waitpid(2) asks for a place for the status, which it has.
        if unsafe { libc::waitpid(child, &mut status, 0) } != child || status != 0 {
            return Err(format!("process {child} failed").into());
        }
    }
    Ok(())
}

fn report(error: &dyn Error) -> i32 {
    eprintln!("process {}: {error}", process::id());
    1
}

fn server_context(directory: &str) -> Result<SslContext> {
    let (key, certificate) = self_signed()?;
    let mut context = SslContext::builder(SslMethod::tls_server())?;
    context.set_private_key(&key)?;
    context.set_certificate(&certificate)?;
    // The same in all programs that share sessions.
    context.set_session_id_context(b"prefork")?;
    match Cache::open(directory, &"capacity=16MiB ttl=1h".parse()?).and_then(|cache| cache.attach(&mut context)) {
        Ok(()) => {}
        // A server whose cache cannot be opened goes on without it.
        Err(error) => eprintln!("no session cache: {error}"),
    }
    Ok(context.build())
}

/// Answers so many connections, each with the number of this process.
fn serve(listener: &TcpListener, context: &SslContext, connections: usize) -> Result<()> {
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        let mut stream = SslStream::new(Ssl::new(context)?, patient(stream)?)?;
        stream.accept()?;
        write!(stream, "{}", process::id())?;
        stream.shutdown()?;
    }
    Ok(())
}

/// A client that comes back so many times, with the newest session it was given.
fn visit(listener: &TcpListener, times: usize) -> Result<()> {
    let newest: Arc<Mutex<Option<SslSession>>> = Arc::default();
    let context = client_context(Arc::clone(&newest))?;
    for _ in 0..times {
        let mut ssl = Ssl::new(&context)?;
        if let Some(session) = newest.lock().map_err(|_| "a panic")?.take() {
            // SAFETY: `set_session` asks for a session of the same SSL_CTX: `newest` has none of others.
            unsafe { ssl.set_session(&session)? };
        }
        let mut stream = SslStream::new(ssl, patient(TcpStream::connect(listener.local_addr()?)?)?)?;
        stream.connect()?;
        let mut server = String::new();
        stream.read_to_string(&mut server)?;
        let how = if stream.ssl().session_reused() { "resumed" } else { "full handshake" };
        println!("process {server}: {how}");
        // Without a goodbye OpenSSL takes the session for a bad one.
        stream.shutdown()?;
    }
    Ok(())
}

fn client_context(newest: Arc<Mutex<Option<SslSession>>>) -> Result<SslContext> {
    let mut context: SslContextBuilder = SslContext::builder(SslMethod::tls_client())?;
    // It visits its own server, so it takes any certificate.
    context.set_verify(SslVerifyMode::NONE);
    context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    context.set_new_session_callback(move |_, session| {
        if let Ok(mut newest) = newest.lock() {
            *newest = Some(session);
        }
    });
    Ok(context.build())
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn self_signed() -> Result<(PKey<Private>, X509)> {
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
    let mut certificate: X509Builder = X509::builder()?;
    certificate.set_pubkey(&key)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((key, certificate.build()))
}
