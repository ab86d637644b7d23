//! Clients that Debian has as programs: `openssl s_client`, `gnutls-cli`, `curl`.

use crate::kit::{Kit, REQUEST};
use crate::visit::{visits, Errand, Visit};
use std::fs;
use std::process::Command;
use std::time::Duration;
use support::{run, Finished, Tls};

const DEADLINE: Duration = Duration::from_secs(60);

fn s_client_command(kit: &Kit, errand: &Errand) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-connect", &format!("127.0.0.1:{}", errand.port)]);
    command.args(["-servername", "localhost", "-CAfile", &kit.ca, "-verify_return_error"]);
    command.arg(if errand.tls == Tls::V12 { "-tls1_2" } else { "-tls1_3" });
    if let Some((cert, key)) = errand.certificate {
        command.args(["-cert", cert, "-key", key]);
    }
    command
}

/// What s_client says of each handshake: `New, TLS...` or `Reused, TLS...`. The page of `openssl s_server` has the same
/// lines, so the answer is cut off first.
fn own_words(done: &Finished) -> (Vec<bool>, &str) {
    let begin = ["HTTP/1.", "\nworker "].into_iter().filter_map(|word| done.stdout.find(word)).min();
    let Some(begin) = begin else { panic!("openssl s_client gets no answer\n{done}") };
    let (own, answer) = done.stdout.split_at(begin);
    let word = |line: &str| match line {
        _ if line.starts_with("Reused, TLS") => Some(true),
        _ if line.starts_with("New, TLS") => Some(false),
        _ => None,
    };
    (own.lines().filter_map(word).collect(), answer)
}

/// A process per visit, each with the session saved by the one before. Waiting for the server to close lets the tickets
/// of TLS 1.3 arrive.
pub fn s_client(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let file = kit.scratch.text(&format!("s_client-{}-{:?}.pem", errand.port, errand.tls));
    let visit = |number: usize| {
        let mut command = s_client_command(kit, errand);
        command.args(["-sess_out", &file]);
        if number > 0 {
            command.args(["-sess_in", &file]);
        }
        let early = errand.early && number > 0;
        if early {
            command.args(["-early_data", &kit.request]);
        }
        let input = if early { "" } else { REQUEST };
        let done = run(&mut command, DEADLINE, input).expect_success("openssl s_client cannot connect");
        let (own, answer) = own_words(&done);
        let [visit] = &visits(answer, errand)[..] else { panic!("openssl s_client does not get one answer\n{done}") };
        assert_eq!(own, [visit.resumed], "server and client disagree on whether the session resumed\n{done}");
        let accepted = done.stdout.contains("Early data was accepted");
        assert_eq!(accepted, visit.early, "server and client disagree on early data\n{done}");
        visit.clone()
    };
    (0..errand.visits).map(visit).collect()
}

/// One process that drops its connection and connects again, five times. The first five never send a request, so of
/// these there is the client's word only. It does not wait for anything either, so it may have to try again.
pub fn s_client_reconnect(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let once = || {
        let mut command = s_client_command(kit, errand);
        command.arg("-reconnect");
        let done = run(&mut command, DEADLINE, REQUEST).expect_success("openssl s_client -reconnect cannot connect");
        let (own, answer) = own_words(&done);
        let [last] = &visits(answer, errand)[..] else { panic!("openssl s_client does not get one answer\n{done}") };
        assert_eq!(own.len(), 6, "openssl s_client does not connect six times\n{done}");
        assert_eq!(own[5], last.resumed, "server and client disagree on whether the session resumed\n{done}");
        let silent = own[..5].iter().map(|resumed| Visit { resumed: *resumed, ..Visit::default() });
        silent.chain([last.clone()]).collect::<Vec<Visit>>()
    };
    let mut runs = (0..errand.tries).map(|_| once());
    let first = runs.next().expect("at least one try");
    let complete = |visits: &Vec<Visit>| visits[1..].iter().all(|visit| visit.resumed);
    if complete(&first) {
        first
    } else {
        runs.find(complete).unwrap_or(first)
    }
}

/// A process per return: it connects, saves the session, connects again with it. Only the second connection is told of,
/// because the first one sends no request and waits for no answer, so it may have to try again.
///
/// gnutls-cli waits 60 ms for a ticket of TLS 1.3. When the machine is too busy for that, it comes back without one,
/// which says nothing about the server, and is tried again.
pub fn gnutls(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let returns = errand.visits - 1;
    let version =
        if errand.tls == Tls::V12 { "NORMAL:-VERS-ALL:+VERS-TLS1.2" } else { "NORMAL:-VERS-ALL:+VERS-TLS1.3" };
    let (mut all, mut tries) = (Vec::new(), errand.tries);
    for _try in 0..20 * returns {
        let mut command = Command::new("gnutls-cli");
        command.args(["-d", "4", "--resume", "--x509cafile", &kit.ca, "--priority", version]);
        command.args(["--sni-hostname", "localhost", "--verify-hostname", "localhost"]);
        command.args(["-p", &errand.port.to_string(), "127.0.0.1"]);
        if let Some((cert, key)) = errand.certificate {
            command.args(["--x509certfile", cert, "--x509keyfile", key]);
        }
        if errand.early {
            command.args(["--earlydata", &kit.request]);
        }
        let input = if errand.early { "" } else { REQUEST };
        let done = run(&mut command, DEADLINE, input).expect_success("gnutls-cli cannot connect twice");
        assert!(done.stdout.contains("Connecting again"), "gnutls-cli does not come back\n{done}");
        if errand.tls == Tls::V12 || done.stderr.contains("sent PSK resumption identity") {
            // Whatever the first connection was told is not about a return.
            let found = visits(&done.stdout, errand);
            let Some(visit) = found.last() else { panic!("gnutls-cli gets no answer\n{done}") };
            let own = done.stdout.contains("This is a resumed session");
            assert_eq!(own, visit.resumed, "server and client disagree on whether the session resumed\n{done}");
            tries -= 1;
            if visit.resumed || tries == 0 {
                all.push(visit.clone());
                tries = errand.tries;
            }
        }
        if all.len() == returns {
            return all;
        }
    }
    panic!("{:?}: gnutls-cli came back as it should in {} of {} runs only", errand.tls, all.len(), 20 * returns);
}

/// One process that is given the address several times and may not keep a connection.
pub fn curl(kit: &Kit, errand: &Errand) -> Vec<Visit> {
    let mut command = Command::new("curl");
    let version: &[&str] = if errand.tls == Tls::V12 { &["--tlsv1.2", "--tls-max", "1.2"] } else { &["--tlsv1.3"] };
    command.args(["-q", "-sS", "-v", "-4", "--noproxy", "*", "--max-time", "20", "--cacert", &kit.ca]);
    command.args(["-H", "Connection: close"]).args(version);
    if let Some((cert, key)) = errand.certificate {
        command.args(["--cert", cert, "--key", key]);
    }
    // Each answer to a file of its own, or it could not be told from the next.
    let answers: Vec<String> =
        (0..errand.visits).map(|n| kit.scratch.text(&format!("curl-{}-{n}", errand.port))).collect();
    for answer in &answers {
        command.args(["-o", answer, &format!("https://localhost:{}/", errand.port)]);
    }
    let done = run(&mut command, DEADLINE, "").expect_success("curl does not get its answers");
    let answer = |path: &String| fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}\n{done}"));
    let all: Vec<Visit> = answers.iter().flat_map(|path| visits(&answer(path), errand)).collect();
    assert_eq!(all.len(), errand.visits, "curl does not get an answer to every request\n{done}");
    let offered =
        done.stderr.matches("SSL re-using session ID").count() + done.stderr.matches("SSL reusing session").count();
    assert_eq!(offered, errand.visits - 1, "curl does not offer the session of the connection before\n{done}");
    all
}
