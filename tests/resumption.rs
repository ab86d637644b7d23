//! A session made in one process resumes in every other that shares the store, whatever the shape of the server, the
//! version of TLS and the client.
//!
//! The counterpart is measured the same way: OpenSSL's own cache lives in one process, so with it clients that come
//! back start over again and again.

mod support;

use std::thread;
use std::time::Duration;
use support::{
    gnutls, measure, python_visits, resume_client, s_client, wait_until, Scratch, Server, Tally, Tls, Traffic, Visit,
    BOTH,
};

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
    let store = scratch.join("store");
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
    let session = scratch.join("session.pem");
    resume_client(from.port, 1, tls, &["-o", &session]);
    resume_client(to.port, 1, tls, &["-i", &session])
}

const CARRIED: Tally = Tally { resumed: 1, of: 1, elsewhere: 1 };

#[test]
fn unrelated_programs_share_a_store() {
    let scratch = Scratch::new("two-programs");
    let store = scratch.join("store");
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
    let one = Server::start("prefork_server", &["-s", &scratch.join("one")]);
    let other = Server::start("event_server", &["-s", &scratch.join("other")]);
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
    let (store, session) = (scratch.join("store"), scratch.join("session.pem"));
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
    let (store, session) = (scratch.join("store"), scratch.join("session.pem"));
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
    let (store, session) = (scratch.join("store"), scratch.join("session.pem"));
    for tls in BOTH {
        let server = Server::start("prefork_server", &["-s", &store]);
        resume_client(server.port, 1, tls, &["-o", &session]);
        let killed = server.workers();
        assert_eq!(killed.len(), 4, "prefork_server does not run its four workers: {killed:?}");
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

/// How many of these visits resumed.
fn resumed(visits: &[Visit]) -> usize {
    visits.iter().filter(|visit| visit.resumed).count()
}

/// True when at least two workers have answered.
fn several_workers(visits: &[Visit]) -> bool {
    visits.iter().any(|visit| visit.worker != visits[0].worker)
}

// In fork_server every connection has a process of its own, so whatever resumes there has crossed processes.

#[test]
fn openssl_s_client_resumes_across_processes() {
    let scratch = Scratch::new("s-client");
    let store = scratch.join("store");
    for program in ["fork_server", "prefork_server"] {
        let server = Server::start(program, &["-s", &store]);
        for tls in BOTH {
            let visits = s_client(server.port, tls, &scratch.join("session.pem"), 6);
            assert_eq!(resumed(&visits), 6, "{tls:?}, {program}: openssl s_client had to start over: {visits:?}");
            assert!(
                program == "prefork_server" || several_workers(&visits),
                "fork_server served all in one process: {visits:?}"
            );
        }
    }
}

#[test]
fn gnutls_resumes_across_processes() {
    let scratch = Scratch::new("gnutls");
    let server = Server::start("fork_server", &["-s", &scratch.join("store")]);
    for tls in BOTH {
        let resumed = gnutls(server.port, tls, 4);
        assert_eq!(resumed, [true; 4], "{tls:?}: gnutls-cli had to start over");
    }
}

#[test]
fn python_resumes_across_processes() {
    let scratch = Scratch::new("python");
    let server = Server::start("fork_server", &["-s", &scratch.join("store")]);
    for tls in BOTH {
        let visits = python_visits(server.port, tls, 6);
        assert_eq!(resumed(&visits), 6, "{tls:?}: a Python client had to start over: {visits:?}");
        assert!(several_workers(&visits), "fork_server served all in one process: {visits:?}");
    }
}

#[test]
fn a_client_that_hangs_up_without_goodbye_keeps_its_session() {
    let scratch = Scratch::new("hang-up");
    let server = Server::start("prefork_server", &["-s", &scratch.join("store")]);
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
    let scratch = Scratch::new("own-cache");
    let prefork = Server::start("prefork_server", &["-w", "8"]);
    let fork = Server::start("fork_server", &[]);
    for tls in BOTH {
        let tally = measure(prefork.port, 21, tls);
        assert_eq!(tally.elsewhere, 0, "{tls:?}: a session resumed in a process that could not know it: {tally:?}");
        assert!(
            tally.resumed * 4 <= tally.of * 3,
            "{tls:?}: OpenSSL's own cache does as well as a shared one: {tally:?}"
        );

        let session = scratch.join("session.pem");
        let (ours, stock) = (measure(fork.port, 5, tls), s_client(fork.port, tls, &session, 3));
        let python = python_visits(fork.port, tls, 3);
        assert_eq!(ours.resumed, 0, "{tls:?}: resumed in a process that had just begun: {ours:?}");
        assert_eq!((resumed(&stock), resumed(&python)), (0, 0), "{tls:?}: resumed in a process that had just begun");
        assert_eq!(
            gnutls(fork.port, tls, 2),
            [false; 2],
            "{tls:?}: gnutls-cli resumed in a process that had just begun"
        );
    }
}
