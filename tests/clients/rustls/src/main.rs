//! Visits 127.0.0.1:PORT with rustls, whose ClientConfig keeps the sessions.
//!
//! Usage: rustls-client PORT TLSv1.2|TLSv1.3 VISITS CA [CERT KEY]. Prints what the server answers, and the client's own
//! word. With EARLY_DATA=1 in the environment the request goes out as early data.

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (port, version, visits) = (&args[0], &args[1], args[2].parse::<u32>()?);
    let early = std::env::var_os("EARLY_DATA").is_some();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&args[3])?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let wanted = if version == "TLSv1.2" { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[wanted])?;
    let builder = builder.with_webpki_verifier(verifier);
    let mut config = match &args[4..] {
        [cert, key, ..] => builder
            .with_client_auth_cert(vec![CertificateDer::from_pem_file(cert)?], PrivateKeyDer::from_pem_file(key)?)?,
        _ => builder.with_no_client_auth(),
    };
    config.enable_early_data = early;
    let config = Arc::new(config);
    for _ in 0..visits {
        visit(port, version, &config, early)?;
    }
    Ok(())
}

fn visit(port: &str, version: &str, config: &Arc<ClientConfig>, early: bool) -> Result<(), Box<dyn Error>> {
    let tcp = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut connection = ClientConnection::new(config.clone(), "localhost".try_into()?)?;
    let mut offered = false;
    if early {
        if let Some(mut writer) = connection.early_data() {
            writer.write_all(REQUEST)?;
            offered = true;
        }
    }
    let mut tls = StreamOwned::new(connection, tcp);
    if !offered {
        tls.write_all(REQUEST)?;
    } else {
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        // What was refused has to be said again.
        if !tls.conn.is_early_data_accepted() {
            tls.write_all(REQUEST)?;
        }
    }
    let mut answer = String::new();
    match tls.read_to_string(&mut answer) {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.into()),
        _ => println!("{}", answer.trim()),
    }
    let resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    println!("client {version} resumed {}", u8::from(resumed));
    if early {
        println!("client early data {}", if tls.conn.is_early_data_accepted() { "accepted" } else { "none" });
    }
    Ok(())
}
