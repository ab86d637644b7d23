//! One connection as the server saw it, read from what a client prints.

use support::Tls;

/// What to do: where to go, and how.
pub struct Errand<'a> {
    pub port: u16,
    pub tls: Tls,
    pub visits: usize,
    /// Certificate and key of the client, when the server demands one.
    pub certificate: Option<(&'a str, &'a str)>,
    /// The request goes out as early data from the second visit on.
    pub early: bool,
    /// How often a client may try that comes back before the server has stored its session. OpenSSL sends the last
    /// message of a TLS 1.2 handshake before it hands the session over; most clients wait for an answer first.
    pub tries: usize,
}

impl Errand<'_> {
    /// The version as OpenSSL and most others write it.
    pub fn version(&self) -> &'static str {
        match self.tls {
            Tls::V12 => "TLSv1.2",
            Tls::V13 => "TLSv1.3",
        }
    }
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// The process that answered; empty when the server does not tell.
    pub worker: String,
    pub resumed: bool,
    /// Early data was accepted.
    pub early: bool,
}

/// The visits in the output of a client that prints what it gets. The server's word is the line `worker NAME resumed
/// 0|1`, or `New, TLS...` and `Reused, TLS...` on the page of `openssl s_server -www`. The client's own word, if it has
/// one, follows in a line that begins with `client`.
pub fn visits(output: &str, errand: &Errand) -> Vec<Visit> {
    let mut visits: Vec<Visit> = Vec::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            ["worker", worker, "resumed", resumed] => {
                visits.push(Visit { worker: worker.to_owned(), resumed: resumed == "1", early: false });
            }
            [word @ ("New" | "Reused"), version, "Cipher", "is", _] => {
                assert_eq!(version, errand.version(), "not the version that was asked for\n{output}");
                visits.push(Visit { resumed: word == "Reused", ..Visit::default() });
            }
            [version, "early", "data", early, "client", "certificate", certificate] => {
                let last = visits.last_mut().expect("the server's first line comes first");
                assert_eq!(version, errand.version(), "not the version that was asked for\n{output}");
                assert_eq!(
                    certificate == "known",
                    errand.certificate.is_some(),
                    "the client certificate is lost\n{output}"
                );
                last.early = early == "accepted";
            }
            ["client", "early", "data", early] => {
                let last = visits.last().expect("the server's word comes first");
                assert_eq!(early == "accepted", last.early, "server and client disagree on early data\n{output}");
            }
            ["client", version, word, own] => {
                let last = visits.last().expect("the server's word comes first");
                assert_eq!(version, errand.version(), "not the version that was asked for\n{output}");
                let agrees = match word {
                    "resumed" => last.resumed == (own == "1"),
                    "offered" => own == "1" || !last.resumed,
                    _ => false,
                };
                assert!(agrees, "server and client disagree on whether the session resumed\n{output}");
            }
            _ => {}
        }
    }
    visits
}
