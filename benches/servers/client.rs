//! A client that comes back: OpenSSL's, with sessions in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::ssl::{
    Ssl, SslContext, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslVerifyMode, SslVersion,
};

use crate::machine::Result;

/// Longest wait for a byte.
const PATIENCE: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// TLS 1.2 without tickets: sessions come back by their id.
    V12,
    /// TLS 1.3.
    V13,
}

impl Tls {
    pub const BOTH: [Tls; 2] = [Tls::V12, Tls::V13];

    /// How the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Tls::V12 => "1.2, by id",
            Tls::V13 => "1.3",
        }
    }
}

/// What came of a connection.
pub struct Visit {
    pub resumed: bool,
    /// The session to offer next.
    pub session: Option<SslSession>,
}

pub struct Client {
    context: SslContext,
    /// The newest session. TLS 1.3 sends them after the handshake, among the first data.
    newest: Arc<Mutex<Option<SslSession>>>,
}

impl Client {
    pub fn new(tls: Tls) -> Result<Client> {
        let version = if tls == Tls::V12 { SslVersion::TLS1_2 } else { SslVersion::TLS1_3 };
        let mut context = SslContext::builder(SslMethod::tls_client())?;
        context.set_min_proto_version(Some(version))?;
        context.set_max_proto_version(Some(version))?;
        // This client measures and sends no secret, so it takes any certificate.
        context.set_verify(SslVerifyMode::NONE);
        if tls == Tls::V12 {
            context.set_options(SslOptions::NO_TICKET);
        }
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL_STORE);
        let newest = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&newest);
        context.set_new_session_callback(move |_, session| *keep.lock().expect("one thread") = Some(session));
        Ok(Client { context: context.build(), newest })
    }

    /// One connection, with this session offered: handshake, request, answer, goodbye.
    pub fn visit(&self, port: u16, offer: Option<&SslSession>) -> Result<Visit> {
        *self.newest.lock().expect("one thread") = None;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_hostname("localhost")?;
        if let Some(session) = offer {
            // SAFETY: the session was made under this SSL_CTX, or one with the same settings, as the function demands.
            unsafe { ssl.set_session(session) }?;
        }
        let mut stream = ssl.connect(stream).map_err(|error| format!("the handshake fails: {error}"))?;
        stream.write_all(REQUEST)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|error| format!("the answer is cut off: {error}"))?;
        if !answer.starts_with(b"HTTP/1.1 200 ") && !answer.starts_with(b"HTTP/1.0 200 ") {
            return Err(format!("not an answer: {:?}", String::from_utf8_lossy(&answer)).into());
        }
        let resumed = stream.ssl().session_reused();
        // Without a goodbye OpenSSL would take the session for a bad one.
        let _ = stream.shutdown();
        let session = self.newest.lock().expect("one thread").take();
        // TLS 1.2 has a new session only after a full handshake: the one offered stays good.
        Ok(Visit { resumed, session: session.or_else(|| offer.cloned()) })
    }
}
