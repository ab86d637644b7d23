//! Two servers that share a store and differ in their session id context: sessions are found, and OpenSSL refuses all of them. No
//! figure may look well then, and the program says what to do.

use std::fs;
use support::program::{exit_status, number, sesscache};
use support::{compile, resume_client, root, staged, Scratch, Server, BOTH};

/// Visits of each version.
const VISITS: u64 = 10;

#[test]
fn found_sessions_that_do_not_resume_make_a_rate_of_0_and_a_finding_with_its_remedy() {
    let scratch = Scratch::new("program-refused");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    let source = fs::read_to_string(root().join("c-examples/prefork_server.c")).expect("an example");
    let other = source.replace(r#"context[] = "examples""#, r#"context[] = "anothers""#);
    assert_ne!(source, other, "the example has another session id context by now");
    let (file, program) = (scratch.join("other.c"), scratch.join("other"));
    fs::write(&file, other).expect("a source");
    compile(&[&file], &program);
    let one = Server::start("prefork_server", &["-s", &store]);
    let two = Server::start_command(staged(&program), &["-s", &store]);
    for tls in BOTH {
        for _ in 0..VISITS {
            resume_client(one.port, 1, tls, &["-o", &session]);
            assert_eq!(
                resume_client(two.port, 1, tls, &["-i", &session]).resumed,
                0,
                "{tls:?}: contexts are not heeded"
            );
        }
    }
    one.stop();
    two.stop();

    let shown = sesscache(&["--json", &store]);
    let figures = serde_json::from_str::<serde_json::Value>(&shown.stdout).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(number(&figures, "hits_refused"), 2 * VISITS, "{shown}");
    assert_eq!(number(&figures, "handshakes_full"), 4 * VISITS, "{shown}");
    assert_eq!(figures["resumption_rate"].as_f64(), Some(0.0), "{shown}");
    assert_eq!(figures["hit_rate"].as_f64(), Some(0.0), "{shown}");
    let doctor = sesscache(&["doctor", &store]);
    assert_ne!(exit_status(&doctor), 0, "{doctor}");
    let mut lines = doctor.stdout.lines().skip_while(|line| !line.starts_with("WARN  resumption"));
    let (finding, remedy) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    assert!(finding.contains(&format!("refused {} sessions", 2 * VISITS)), "{doctor}");
    assert!(remedy.contains("SSL_CTX_set_session_id_context"), "{doctor}");
}
