//! docs/clients.md, made from what a run has found.

use crate::roster::{Client, CLIENTS};
use crate::scene::{Scene, Share};
use crate::support::{root, Tls, BOTH};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::Mutex;

#[derive(Default)]
pub struct Table(Mutex<BTreeMap<(&'static str, bool, Scene), Share>>);

const ABOUT: &str = "\
# Which clients resume

Written by `make clients`, which installs the clients, runs them, and fails when one of them does anything else than
what this page says. Every client comes back several times over TLS 1.2 and TLS 1.3 to a server that gives every
connection a process of its own, so whatever resumes was made by another process. The word that counts is the
server's; where the client has one, too, they agree. Clients trust the CA of the server's certificate and check its
name.

A cell is the number of connections that resumed, of those that could. `gnutls-cli --resume` and `s_client -reconnect`
come back in TLS 1.2 without having waited for an answer. OpenSSL hands a TLS 1.2 session to the cache after it has
sent the last message of the handshake, so a client in such a hurry may overtake its session on a busy machine. It
starts over then, which is no fault of either side, and the two try again.
";

const ABOUT_CONTROL: &str = "\
## The same clients with other servers

TLS 1.2, then TLS 1.3 in each cell; - stands for what the client lacks or was not tried.

- *own cache*: the same server without sesscache: each session is lost with the process that made it. This is what
  shows that the figures above can be otherwise.
- *prefork*: `prefork_server`, four workers that share sessions. Clients that want HTTP, or are slow to start, meet
  only the server of the first table, which for them is `tests/clients/server.c` and for the others `fork_server`.
- *s_server*: one process of `openssl s_server` as it comes, which gives out tickets that hold the session. A client
  that starts over here does so for reasons of its own.
- *s_server, ids*: the same with `-no_ticket`: session ids, as with sesscache. What resumes here has to resume with
  sesscache.
";

const ABOUT_SETTINGS: &str = "\
## Settings of the server

Cells as above. The server is the one of the first table with one thing changed.

- *no context*: without a session id context. OpenSSL resumes, as long as no client certificate is asked for.
- *certificate*: a client certificate is demanded, and a session id context is set. The certificate is known to the
  server in resumed connections, too.
- *certificate, no context*: OpenSSL stores no session then: every connection is a full handshake, and succeeds.
- *early data*: the request goes out as early data (TLS 1.3 only); counted are the connections that resumed and whose
  early data was accepted. Chromium sends it with `--enable-features=EnableTLS13EarlyData`. Those with a - offer no
  way to send it as they are built here.
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
            "\nPaths are below `tests/clients/`. `cargo test --test clients -- --include-ignored NAME` runs one of them;\n\
             `--list` shows the names. `make test` runs those whose tools are small."
                .to_owned(),
        );

        line("\n## Those that do not resume\n".to_owned());
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
