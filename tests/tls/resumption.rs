//! A session made in one process resumes in every other that shares the store, whatever the shape of the server and the
//! version of TLS. tests/clients shows the same for other clients than our own.
//!
//! The counterpart is measured the same way: OpenSSL's own cache lives in one process, so with it clients that come
//! back start over again and again.

use std::thread;
use std::time::Duration;
use support::{measure, resume_client, wait_until, Scratch, Server, Tally, Tls, Traffic, BOTH};

/// Every client that comes back is resumed, and not only by the worker that it met before.
fn assert_resumes_everywhere(server: &Server, tls: Tls) {
    let mut elsewhere = 0;
    // One worker may by chance answer all connections of a round.
    for _round in 0..20 {
        let tally = measure(server.port, 7, tls);
        assert_eq!(
            tally.resumed, tally.of,
            "{tls:?}: a client that came back had to go through a full handshake: {tally:?}"
        );
        elsewhere += tally.elsewhere;
        if elsewhere > 0 {
            return;
        }
    }
    panic!("{tls:?}: no session resumed in a worker other than the one that had made it");
}

/// Past the deadline of 5 ms that is the default a session is rather not stored than waited for. A test machine may be
/// busier than that, so where many write at the same time the wait is the longest there is.
const PATIENT: [&str; 2] = ["-o", "deadline=10s"];

/// The same for a server with these arguments and a store of its own, which has nothing to complain about.
fn assert_server_shares(program: &str, arguments: &[&str]) {
    let scratch = Scratch::new("resumption");
    let store = scratch.text("store");
    let server = Server::start(program, &[&["-s", &store], &PATIENT[..], arguments].concat());
    for tls in BOTH {
        assert_resumes_everywhere(&server, tls);
    }
    assert_eq!(server.stop(), "", "the server complains while it shares its sessions");
}

#[test]
fn prefork_workers_that_inherit_the_ssl_ctx_share_their_sessions() {
    assert_server_shares("prefork_server", &[]);
}

#[test]
fn prefork_workers_with_an_ssl_ctx_each_share_their_sessions() {
    assert_server_shares("prefork_server", &["-l"]);
}

#[test]
fn a_process_per_connection_shares_its_sessions() {
    assert_server_shares("fork_server", &[]);
}

#[test]
fn threads_share_their_sessions() {
    assert_server_shares("threaded_server", &[]);
}

#[test]
fn event_loops_that_inherit_the_ssl_ctx_share_their_sessions() {
    assert_server_shares("event_server", &[]);
}

#[test]
fn event_loops_with_an_ssl_ctx_each_share_their_sessions() {
    assert_server_shares("event_server", &["-l"]);
}

/// Saves a session at one server and offers it once at another; 1 when it resumed.
fn carry(from: &Server, to: &Server, tls: Tls, scratch: &Scratch) -> Tally {
    let session = scratch.text("session.pem");
    resume_client(from.port, 1, tls, &["-o", &session]);
    resume_client(to.port, 1, tls, &["-i", &session])
}

const CARRIED: Tally = Tally { resumed: 1, of: 1, elsewhere: 1 };

#[test]
fn unrelated_programs_share_a_store() {
    let scratch = Scratch::new("two-programs");
    let store = scratch.text("store");
    let prefork = Server::start("prefork_server", &["-s", &store]);
    let event = Server::start("event_server", &["-s", &store]);
    for tls in BOTH {
        assert_eq!(
            carry(&prefork, &event, tls, &scratch),
            CARRIED,
            "{tls:?}: made by prefork_server, not resumed by event_server"
        );
        assert_eq!(
            carry(&event, &prefork, tls, &scratch),
            CARRIED,
            "{tls:?}: made by event_server, not resumed by prefork_server"
        );
    }
}

#[test]
fn programs_with_a_store_each_share_nothing() {
    let scratch = Scratch::new("two-stores");
    let one = Server::start("prefork_server", &["-s", &scratch.text("one")]);
    let other = Server::start("event_server", &["-s", &scratch.text("other")]);
    for tls in BOTH {
        assert_eq!(
            carry(&one, &other, tls, &scratch).resumed,
            0,
            "{tls:?}: a session resumed where it was never stored"
        );
    }
}

#[test]
fn sessions_outlive_a_restart() {
    let scratch = Scratch::new("restart");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    for tls in BOTH {
        let before = Server::start("prefork_server", &["-s", &store]);
        resume_client(before.port, 1, tls, &["-o", &session]);
        before.stop();
        let after = Server::start("prefork_server", &["-s", &store]);
        let tally = resume_client(after.port, 1, tls, &["-i", &session]);
        assert_eq!(tally, CARRIED, "{tls:?}: after a restart of the server every client starts over");
    }
}

#[test]
fn sessions_outlive_the_sudden_death_of_all_processes() {
    let scratch = Scratch::new("kill");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    for tls in BOTH {
        let mut before = Server::start("prefork_server", &[&["-s", &store], &PATIENT[..]].concat());
        let port = before.port;
        resume_client(port, 1, tls, &["-o", &session]);
        // The processes die in the middle of their work.
        let traffic = Traffic::start(port, tls);
        thread::sleep(Duration::from_millis(300));
        before.kill();
        drop(traffic);
        let after = Server::start("prefork_server", &[&["-s", &store], &PATIENT[..]].concat());
        let tally = resume_client(after.port, 1, tls, &["-i", &session]);
        assert_eq!(tally, CARRIED, "{tls:?}: after kill -9 the sessions of before are lost");
        assert_resumes_everywhere(&after, tls);
    }
}

#[test]
fn a_killed_worker_leaves_the_others_their_sessions() {
    let scratch = Scratch::new("one-killed");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    for tls in BOTH {
        let server = Server::start("prefork_server", &["-s", &store]);
        resume_client(server.port, 1, tls, &["-o", &session]);
        let all = wait_until(Duration::from_secs(20), || server.workers().len() == 4);
        let killed = server.workers();
        assert!(all, "prefork_server does not run its four workers: {killed:?}");
        for pid in &killed {
            assert!(support::signal(*pid, libc::SIGKILL), "worker {pid} was gone before it was killed");
        }
        let replaced = wait_until(Duration::from_secs(20), || {
            let running = server.workers();
            running.len() == killed.len() && running.iter().all(|pid| !killed.contains(pid))
        });
        assert!(replaced, "killed workers are not replaced");
        let tally = resume_client(server.port, 1, tls, &["-i", &session]);
        assert_eq!(tally, CARRIED, "{tls:?}: a session died with the worker that had made it");
    }
}

#[test]
fn a_client_that_hangs_up_without_goodbye_keeps_its_session() {
    let scratch = Scratch::new("hang-up");
    let server = Server::start("prefork_server", &["-s", &scratch.text("store")]);
    for tls in BOTH {
        let tally = resume_client(server.port, 9, tls, &["-x"]);
        assert_eq!(
            tally.resumed, tally.of,
            "{tls:?}: closing TCP without close_notify cost the client its session: {tally:?}"
        );
    }
}

/// What the tests above measure can fail: without a shared cache it does.
#[test]
fn without_a_shared_cache_clients_start_over() {
    let prefork = Server::start("prefork_server", &["-w", "8"]);
    let fork = Server::start("fork_server", &[]);
    for tls in BOTH {
        let tally = measure(prefork.port, 21, tls);
        assert_eq!(tally.elsewhere, 0, "{tls:?}: a session resumed in a process that could not know it: {tally:?}");
        assert!(
            tally.resumed * 4 <= tally.of * 3,
            "{tls:?}: OpenSSL's own cache does as well as a shared one: {tally:?}"
        );

        let ours = measure(fork.port, 5, tls);
        assert_eq!(ours.resumed, 0, "{tls:?}: resumed in a process that had just begun: {ours:?}");
    }
}
