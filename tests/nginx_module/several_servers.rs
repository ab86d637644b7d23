//! Several server blocks on addresses of their own, each with what it says about the cache.

use crate::server::{free_port, Nginx};
use std::fs;

/// Writes `http` with `first` in the server at `nginx.port`, and one more server on `port` with `second`.
fn two_servers(http: &str, first: &str, port: u16, second: &str) -> Nginx {
    let other = format!(
        "server {{ listen 127.0.0.1:{port} ssl; {second}
           location / {{ return 200 \"resumed $ssl_session_reused store $sesscache_resumed_from_store\\n\"; }} }}"
    );
    Nginx::http(&format!("{http} {other}"), first)
}

impl Nginx {
    /// What nginx says to the second of two visits.
    fn comes_back(&self, port: u16, session: &str, version: &str) -> String {
        const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        self.visit(port, session, &[version], REQUEST);
        self.visit(port, session, &[version], REQUEST).said
    }
}

#[test]
fn a_server_with_options_of_its_own_keeps_its_sessions_apart() {
    let port = free_port();
    let mut nginx = two_servers("sesscache STORE;", "", port, "sesscache STORE namespace=b;");
    nginx.start();
    for version in crate::VERSIONS {
        for (name, port) in [("first", nginx.port), ("second", port)] {
            let said = nginx.comes_back(port, &format!("{name}{version}"), version);
            assert!(
                said.contains("resumed r store 1"),
                "{version}: the {name} server does not resume\n{}",
                nginx.log()
            );
        }
        fs::copy(nginx.scratch.join(&format!("second{version}")), nginx.scratch.join("s")).expect("copy a session");
        let visit = nginx.get("s", &[version], "/");
        assert!(!visit.resumed, "{version}: a session of one namespace resumes in the other");
        fs::remove_file(nginx.scratch.join("s")).expect("remove a session");
    }
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

#[test]
fn a_server_with_a_directory_of_its_own_uses_that() {
    let port = free_port();
    let mut nginx = two_servers("sesscache STORE;", "", port, "sesscache STORE-b deadline=20ms;");
    nginx.start();
    for (name, port) in [("first", nginx.port), ("second", port)] {
        let said = nginx.comes_back(port, name, "-tls1_3");
        assert!(said.contains("store 1"), "the {name} server does not resume\n{}", nginx.log());
    }
    assert!(nginx.scratch.path().join("store-b").is_dir(), "the second directory is not used");
    assert_eq!(nginx.logged("[error]"), Vec::<String>::new());
}

/// Tickets of nginx's own still work there: resumed, but not from the store.
#[test]
fn a_server_with_sesscache_off_stays_as_it_was() {
    let port = free_port();
    let mut nginx = two_servers("sesscache STORE;", "", port, "sesscache off; ssl_session_cache shared:own:1m;");
    nginx.start();
    for version in crate::VERSIONS {
        let said = nginx.comes_back(port, &format!("off{version}"), version);
        assert!(said.contains("resumed r store 0"), "{version}: not nginx's own cache\n{said}\n{}", nginx.log());
        let said = nginx.comes_back(nginx.port, &format!("on{version}"), version);
        assert!(said.contains("resumed r store 1"), "{version}: the other server suffers\n{}", nginx.log());
    }
    let page = nginx.get("status", &["-tls1_3"], "/status").said;
    assert!(page.lines().any(|line| line.trim() == "hits 2"), "the server without sesscache asked the store\n{page}");
}

/// `none`, nginx's default, is the one setting that says nothing against sesscache.
#[test]
fn ssl_session_cache_none_may_stand_beside_sesscache() {
    for (http, server) in
        [("sesscache STORE; ssl_session_cache none;", ""), ("sesscache STORE;", "ssl_session_cache none;")]
    {
        let mut nginx = Nginx::http(http, server);
        nginx.start();
        let said = nginx.comes_back(nginx.port, "s", "-tls1_2");
        assert!(said.contains("store 1"), "{http} {server}: no session comes back\n{}", nginx.log());
    }
}
