//! The clients: what each is, how it keeps its sessions, what it cannot do and why.

use crate::kit::{pkg_config, source, Kit};
use crate::scene::Scene;
use crate::visit::{Errand, Visit};
use crate::{programs, tools};
use std::process::Command;
use std::time::Duration;
use support::{run, Tls, BOTH};

/// Who serves the client where nothing special is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBy {
    /// It reads whatever comes: the example servers will do.
    Examples,
    /// It wants an answer in HTTP, or more time than the five seconds that the examples give to a connection.
    TestServer,
}

/// A client that does not resume in a version of TLS, and why.
pub struct Exception {
    pub tls: Tls,
    /// It does resume from tickets that hold the session.
    pub with_tickets: bool,
    pub reason: &'static str,
}

pub struct Client {
    /// The name of its test.
    pub id: &'static str,
    pub name: &'static str,
    pub versions: &'static [Tls],
    /// Its tools are large: it runs on request only.
    pub large: bool,
    pub served_by: ServedBy,
    /// The first visit is among those that it tells of.
    pub tells_first: bool,
    /// It can be given a certificate.
    pub certificate: bool,
    /// It can send early data, in the version that is installed.
    pub early: fn() -> bool,
    pub exception: Option<Exception>,
    /// How it is run, and how it keeps its sessions.
    pub how: &'static str,
    pub version: fn() -> String,
    pub visit: fn(&Kit, &Errand) -> Vec<Visit>,
}

impl Client {
    /// Whether it makes sense to let the client meet this server.
    pub fn suits(&self, scene: Scene, tls: Tls) -> bool {
        match scene {
            Scene::Prefork => self.served_by == ServedBy::Examples,
            Scene::Certificate | Scene::CertificateNoContext => self.certificate,
            Scene::Early => tls == Tls::V13 && (self.early)(),
            _ => true,
        }
    }

    /// Whether all its returns have to be resumed, or none.
    pub fn ought_to_resume(&self, scene: Scene, tls: Tls) -> bool {
        let exception = self.exception.as_ref().filter(|exception| exception.tls == tls);
        match (scene, exception) {
            (Scene::Alone | Scene::CertificateNoContext, _) => false,
            (Scene::Tickets, Some(exception)) => exception.with_tickets,
            (_, exception) => exception.is_none(),
        }
    }
}

/// What a program prints when asked for its version: its first line.
fn ask(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let done = run(&mut command, Duration::from_secs(30), "").expect_success("a client does not tell its version");
    done.stdout.lines().next().unwrap_or_default().trim().to_owned()
}

/// The words of that line at these places.
fn words(line: &str, places: &[usize]) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    places.iter().filter_map(|place| words.get(*place).copied()).collect::<Vec<_>>().join(", ")
}

fn module_version(module: &str) -> String {
    pkg_config(&["--modversion", module]).concat()
}

fn gnutls_version() -> String {
    words(&ask("gnutls-cli", &["--version"]), &[1])
}

fn openssl_version() -> String {
    words(&ask("openssl", &["version"]), &[1])
}

/// The locked version, which is the one that is built.
fn rustls_version() -> String {
    let lock = std::fs::read_to_string(source("rustls/Cargo.lock")).expect("Cargo.lock of the client with rustls");
    let package = lock.split("[[package]]").find(|package| package.contains("name = \"rustls\"\n"));
    let version = package.and_then(|package| package.split("version = \"").nth(1)?.split('"').next());
    version.expect("rustls is in its client's Cargo.lock").to_owned()
}

const PYTHON_VERSION: &str =
    "import platform, ssl; print(platform.python_version(), 'with', *ssl.OPENSSL_VERSION.split()[:2])";

/// What most of them have in common.
const BASE: Client = Client {
    id: "",
    name: "",
    versions: &BOTH,
    large: false,
    served_by: ServedBy::Examples,
    tells_first: true,
    certificate: true,
    early: || false,
    exception: None,
    how: "",
    version: openssl_version,
    visit: tools::s_client,
};

pub const CLIENTS: &[Client] = &[
    Client {
        id: "openssl_s_client",
        name: "OpenSSL `s_client`",
        early: || true,
        how: "`openssl s_client -sess_out FILE`, then again with `-sess_in FILE`: one process per visit",
        ..BASE
    },
    Client {
        id: "openssl_s_client_reconnect",
        name: "OpenSSL `s_client -reconnect`",
        certificate: false, // as without -reconnect
        exception: Some(Exception {
            tls: Tls::V13,
            with_tickets: false,
            reason: "It drops the connection right after the handshake, before it has read the tickets, which in TLS \
                     1.3 come after the handshake: with `-msg` only the last connection shows a NewSessionTicket. So \
                     it has no session to offer, and starts over with every server. With `-sess_out` and `-sess_in` \
                     the same program resumes.",
        }),
        how: "`openssl s_client -reconnect`: one process that connects six times",
        visit: tools::s_client_reconnect,
        ..BASE
    },
    Client {
        id: "gnutls_cli",
        name: "GnuTLS `gnutls-cli`",
        tells_first: false,
        // gnutls-cli 3.8.9 hands over the early data before the session that says how much is allowed, and fails with
        // every server. 3.8.10 does it in the right order.
        early: || gnutls_version() != "3.8.9",
        how: "`gnutls-cli --resume`, seven times: each connects, saves the session and connects again",
        version: gnutls_version,
        visit: tools::gnutls,
        ..BASE
    },
    Client {
        id: "curl",
        name: "curl",
        served_by: ServedBy::TestServer,
        how: "`curl -H 'Connection: close' URL URL ...`: the sessions live as long as the process",
        version: || {
            let line = ask("curl", &["--version"]);
            let library = line.split_whitespace().find(|word| word.contains("SSL/") || word.contains("TLS/"));
            format!("{} with {}", words(&line, &[1]), library.unwrap_or("another library").replace('/', " "))
        },
        visit: tools::curl,
        ..BASE
    },
    Client {
        id: "libcurl",
        name: "libcurl",
        served_by: ServedBy::TestServer,
        how: "`libcurl/client.c`: new handles that have a share object with `CURL_LOCK_DATA_SSL_SESSION`",
        version: || module_version("libcurl"),
        visit: programs::libcurl,
        ..BASE
    },
    Client {
        id: "python",
        name: "Python `ssl`",
        how: "`python/client.py`: `SSLSocket.session` is passed to the next `wrap_socket`",
        version: || ask("python3", &["-c", PYTHON_VERSION]),
        visit: programs::python,
        ..BASE
    },
    Client {
        id: "nss",
        name: "NSS",
        certificate: false,
        early: || true,
        how: "`nss/client.c`: the library keeps the sessions",
        version: || module_version("nss"),
        visit: programs::nss,
        ..BASE
    },
    Client {
        id: "mbedtls",
        name: "Mbed TLS",
        versions: &[Tls::V12],
        how: "`mbedtls/client.c`: `mbedtls_ssl_get_session`, `mbedtls_ssl_set_session`. TLS 1.2 only, as Mbed \
              TLS 2 has no TLS 1.3",
        version: || {
            let program = programs::mbedtls_program();
            ask(support::text(program), &["version"])
        },
        visit: programs::mbedtls,
        ..BASE
    },
    Client {
        id: "wolfssl",
        name: "wolfSSL",
        how: "`wolfssl/client.c`: `wolfSSL_get1_session`, `wolfSSL_set_session`",
        version: || module_version("wolfssl"),
        visit: programs::wolfssl,
        ..BASE
    },
    Client {
        id: "node_tls",
        name: "Node.js `tls`",
        large: true,
        how: "`node/client.js tls`: the session of the `session` event is passed to the next `tls.connect`",
        version: node_version,
        visit: programs::node_tls,
        ..BASE
    },
    Client {
        id: "node_https",
        name: "Node.js `https`",
        large: true,
        served_by: ServedBy::TestServer,
        how: "`node/client.js https`: an `https.Agent` without keep-alive keeps the sessions",
        version: node_version,
        visit: programs::node_https,
        ..BASE
    },
    Client {
        id: "java_sslsocket",
        name: "Java `SSLSocket`",
        large: true,
        served_by: ServedBy::TestServer, // the first handshake of a process may take long
        how: "`java/Client.java socket`: the `SSLContext` keeps the sessions, by host and port",
        version: java_version,
        visit: programs::java_socket,
        ..BASE
    },
    Client {
        id: "java_https",
        name: "Java `HttpsURLConnection`",
        large: true,
        served_by: ServedBy::TestServer,
        how: "`java/Client.java https`: the same, through the URL classes",
        version: java_version,
        visit: programs::java_https,
        ..BASE
    },
    Client {
        id: "go",
        name: "Go `crypto/tls`",
        large: true,
        exception: Some(Exception {
            tls: Tls::V12,
            with_tickets: true,
            reason: "Its TLS 1.2 client resumes from tickets only: `crypto/tls/handshake_client.go` sends 32 random \
                     bytes as session id, and `ClientSessionState` keeps no id of a server. Tickets that hold the \
                     session are what sesscache replaces. A Go client resumes with TLS 1.3, which it negotiates by \
                     default since Go 1.13.",
        }),
        how: "`go/client.go`: `Config.ClientSessionCache` keeps the sessions",
        version: || words(&ask("go", &["version"]), &[2]).replace("go", ""),
        visit: programs::go,
        ..BASE
    },
    Client {
        id: "rustls",
        name: "rustls",
        large: true,
        early: || true,
        how: "`rustls/`: the `ClientConfig` keeps the sessions",
        version: rustls_version,
        visit: programs::rustls,
        ..BASE
    },
    Client {
        id: "chromium",
        name: "Chromium, headless",
        large: true,
        served_by: ServedBy::TestServer,
        certificate: false,
        early: || true,
        how: "`chromium/page.html`: a page that fetches eight times from a server that closes after every answer",
        version: || words(&ask("chromium", &["--version"]), &[1]),
        visit: programs::chromium,
        ..BASE
    },
];

fn node_version() -> String {
    ask("node", &["-p", "`${process.versions.node} with OpenSSL ${process.versions.openssl}`"])
}

fn java_version() -> String {
    words(&ask("java", &["--version"]), &[0, 1]).replace(',', "")
}
