//! What ends nginx's processes, and what of the sessions is left: upgrades, reloads, crashes, other ways to run it.

use crate::server::Nginx;
use std::fs;
use std::time::Duration;
use support::{signal, wait_until};

/// USR2 starts a new binary with the same configuration, QUIT ends the old one.
#[test]
fn sessions_survive_an_upgrade_of_the_binary() {
    let mut nginx = Nginx::http("sesscache STORE;", "");
    nginx.start_orphaned();
    nginx.get("s", &["-tls1_3"], "/");
    let old = nginx.pid();
    signal(old, libc::SIGUSR2);
    let upgraded = wait_until(Duration::from_secs(30), || ![0, old].contains(&nginx.pid()));
    assert!(upgraded, "there is no new binary\n{}", nginx.log());
    signal(old, libc::SIGQUIT);
    let alone = wait_until(Duration::from_secs(30), || !signal(old, 0));
    assert!(alone, "the old binary does not end\n{}", nginx.log());
    assert!(nginx.get("s", &["-tls1_3"], "/").resumed, "an upgrade costs a full handshake\n{}", nginx.log());
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

#[test]
fn a_reload_may_change_options_and_take_the_cache_away() {
    let mut nginx = Nginx::http("sesscache STORE;", "");
    nginx.start();
    nginx.get("s", &["-tls1_3"], "/");
    // The deadline belongs to what a process has open: the master must not hold it.
    for (lines, resumes) in [("sesscache STORE \"deadline=20ms\";", true), ("", false), ("sesscache STORE;", true)] {
        nginx.configure_http(lines, "");
        let old = nginx.workers();
        signal(nginx.master(), libc::SIGHUP);
        nginx.wait_for_new_workers(&old);
        fs::copy(nginx.scratch.join("s"), nginx.scratch.join("copy")).expect("copy a session");
        assert_eq!(nginx.get("copy", &["-tls1_3"], "/").resumed, resumes, "after a reload to {lines:?}");
        if resumes {
            fs::copy(nginx.scratch.join("copy"), nginx.scratch.join("s")).expect("copy a session");
        }
    }
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

/// With `master_process off`, for debugging, there is no worker that could open the cache. (A reload breaks TLS then,
/// without any module.)
#[test]
fn a_single_process_resumes() {
    let mut nginx = Nginx::http("sesscache STORE;", "");
    nginx.configure_http_with("master_process off;", "sesscache STORE;", "");
    nginx.start();
    nginx.get("s", &["-tls1_3"], "/");
    assert!(nginx.get("s", &["-tls1_3"], "/").resumed, "no session comes back\n{}", nginx.log());
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

/// Debian's package starts nginx as root; others start it as the user that owns the site.
#[test]
fn a_master_without_privileges_resumes_as_well() {
    let mut nginx = Nginx::http("sesscache STORE;", "");
    nginx.start_without_privileges();
    nginx.get("s", &["-tls1_3"], "/");
    assert!(nginx.get("s", &["-tls1_3"], "/").resumed, "no session comes back\n{}", nginx.log());
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

/// The master starts a new worker for one that has crashed. It opens the store like the first.
#[test]
fn sessions_survive_crashed_workers() {
    let mut nginx = Nginx::http("sesscache STORE disk=on;", "");
    nginx.start();
    nginx.get("s", &["-tls1_3"], "/");
    for _ in 0..3 {
        let old = nginx.workers();
        assert!(old.len() == 2 && old.iter().all(|worker| signal(*worker, libc::SIGSEGV)), "no two workers: {old:?}");
        nginx.wait_for_new_workers(&old);
        assert!(nginx.get("s", &["-tls1_3"], "/").resumed, "a crash costs a full handshake\n{}", nginx.log());
    }
    let crashed = nginx.logged("[alert]");
    assert!(crashed.len() == 6 && crashed.iter().all(|line| line.contains("exited on signal 11")), "{crashed:#?}");
    for level in ["[warn]", "[error]", "[crit]", "[emerg]"] {
        assert_eq!(nginx.logged(level), Vec::<String>::new(), "a crash is more than a crash in the error log");
    }
}
