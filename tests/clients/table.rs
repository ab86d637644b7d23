//! docs/clients.md, made from what a run has found.

use crate::roster::{Client, CLIENTS};
use crate::scene::{Scene, Share};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::Mutex;
use support::{root, Tls, BOTH};

#[derive(Default)]
pub struct Table(Mutex<BTreeMap<(&'static str, bool, Scene), Share>>);

const ABOUT: &str = "\
# Which clients resume

`make clients` writes this page. It installs the clients, runs them, and fails when a client behaves differently from
what this page says. Every client returns several times over TLS 1.2 and TLS 1.3 to a server that gives every
connection a process of its own, so another process made each session that resumes. The server reports whether a
session resumed; where the client reports it too, both agree. Clients trust the CA of the server's certificate and
check its name.

A cell is the number of connections that resumed, out of those that could. In TLS 1.2, `gnutls-cli --resume` and
`s_client -reconnect` return without waiting for an answer. OpenSSL hands a TLS 1.2 session to the cache after it has
sent the last message of the handshake, so such a client may overtake its session on a busy machine. It then makes a
full handshake, which is no fault of either side, and these two try again.
";

const ABOUT_CONTROL: &str = "\
## The same clients with other servers

Each cell has TLS 1.2, then TLS 1.3; - means that the client lacks this or that nobody tried it.

- *own cache*: the same server without sesscache. Each session is lost with the process that made it, which shows that
  the figures above could be lower.
- *prefork*: `prefork_server`, four workers that share sessions. Clients that need HTTP or are slow to start meet only
  the server of the first table: `tests/clients/server.c` for them, `fork_server` for the others.
- *s_server*: one process of `openssl s_server` with its defaults, which issues tickets that hold the session. A client
  that does not resume here has reasons of its own.
- *s_server, ids*: the same with `-no_ticket`: session ids, as with sesscache. A client that resumes here must resume
  with sesscache.
";

const ABOUT_SETTINGS: &str = "\
## Settings of the server

Cells as above. The server is that of the first table with one setting changed.

- *no context*: without a session id context. OpenSSL resumes as long as the server asks for no client certificate.
- *certificate*: the server requires a client certificate and sets a session id context. It knows the certificate in
  resumed connections, too.
- *certificate, no context*: OpenSSL then stores no session: every connection is a full handshake, and succeeds.
- *early data*: the client sends the request as early data (TLS 1.3 only). The cell counts connections that resumed and
  in which the server read early data, at least one byte. Chromium sends it with
  `--enable-features=EnableTLS13EarlyData`. Clients with a - cannot send it in the builds used here; gnutls-cli 3.8.9
  cannot with any server, as it hands over the early data before the session.
";

impl Table {
    pub fn record(&self, client: &Client, tls: Tls, scene: Scene, share: Share) {
        self.0.lock().expect("no trial panics in here").insert((client.id, tls == Tls::V13, scene), share);
    }

    fn cell(&self, client: &Client, tls: Tls, scene: Scene) -> String {
        let found = self.0.lock().expect("no trial panics in here").get(&(client.id, tls == Tls::V13, scene)).copied();
        found.map_or("-".to_owned(), |share| format!("{}/{}", share.resumed, share.of))
    }

    fn cells(&self, client: &Client, scene: Scene) -> String {
        let [old, new] = BOTH.map(|tls| self.cell(client, tls, scene));
        if old == "-" && new == "-" {
            return old;
        }
        format!("{old}, {new}")
    }

    /// What is still to be run for a complete page.
    fn missing(&self) -> Vec<&'static str> {
        let incomplete = |client: &&Client| {
            let suits = |tls: Tls| Scene::ALL.into_iter().filter(move |scene| client.suits(*scene, tls));
            client.versions.iter().any(|tls| suits(*tls).any(|scene| self.cell(client, *tls, scene) == "-"))
        };
        CLIENTS.iter().filter(incomplete).map(|client| client.name).collect()
    }

    /// Writes the page if every client has been run to its end.
    pub fn write(&self) {
        let missing = self.missing();
        if !missing.is_empty() {
            eprintln!("docs/clients.md is left as it is: no complete result of {}", missing.join(", "));
            return;
        }
        let path = root().join("docs/clients.md");
        fs::write(&path, self.text()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("docs/clients.md is written");
    }

    fn text(&self) -> String {
        let mut page = format!("{ABOUT}\n");
        let mut line = |text: String| writeln!(page, "{text}").expect("a String takes everything");

        line("| client | version | TLS 1.2 | TLS 1.3 | how |".to_owned());
        line("|---|---|---|---|---|".to_owned());
        for client in CLIENTS {
            let [old, new] = BOTH.map(|tls| self.cell(client, tls, Scene::Shared));
            line(format!("| {} | {} | {old} | {new} | {} |", client.name, (client.version)(), client.how));
        }
        line(
            "\nPaths are below `tests/clients/`. `cargo test --test clients -- --include-ignored NAME` runs one client; `--list` shows\n\
             the names. `make test` runs the clients whose tools are small."
                .to_owned(),
        );

        line("\n## Clients that do not resume\n".to_owned());
        for (client, exception) in CLIENTS.iter().filter_map(|client| Some((client, client.exception.as_ref()?))) {
            let version = if exception.tls == Tls::V12 { "TLS 1.2" } else { "TLS 1.3" };
            let cell = |scene| self.cell(client, exception.tls, scene);
            line(format!("**{}, {version}.** {}", client.name, exception.reason));
            line(format!(
                "One process of `openssl s_server` resumes {} with tickets and {} with `-no_ticket`.\n",
                cell(Scene::Tickets),
                cell(Scene::Ids)
            ));
        }

        let tables = [
            (
                ABOUT_CONTROL,
                &[
                    ("own cache", Scene::Alone),
                    ("prefork", Scene::Prefork),
                    ("s_server", Scene::Tickets),
                    ("s_server, ids", Scene::Ids),
                ],
            ),
            (
                ABOUT_SETTINGS,
                &[
                    ("no context", Scene::NoContext),
                    ("certificate", Scene::Certificate),
                    ("certificate, no context", Scene::CertificateNoContext),
                    ("early data", Scene::Early),
                ],
            ),
        ];
        for (about, columns) in tables {
            line(about.to_owned());
            line(format!("| client | {} |", columns.map(|(title, _)| title).join(" | ")));
            line(format!("|---|{}", "---|".repeat(columns.len())));
            for client in CLIENTS {
                let cells = columns.map(|(_, scene)| self.cells(client, scene));
                line(format!("| {} | {} |", client.name, cells.join(" | ")));
            }
            line(String::new());
        }
        page.trim_end().to_owned() + "\n"
    }
}
