//! nginx with sesscache: what an administrator meets who writes, checks, reloads and upgrades.

mod restarts;
mod server;
mod several_servers;

use server::{free_port, Nginx};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;
use support::{is_root, run, Scratch};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[test]
fn a_check_of_the_configuration_makes_no_directory_and_touches_no_store() {
    let nginx = Nginx::http("sesscache STORE;", "");
    let (accepted, said) = nginx.check();
    assert!(accepted, "nginx -t refuses a configuration that is right\n{said}");
    assert!(!nginx.scratch.path().join("store").exists(), "nginx -t has made the directory of the store");
}

#[test]
fn a_check_of_the_configuration_names_a_wrong_option() {
    for (options, hint) in [("capcity=1MiB", "capacity"), ("ttl=5", "as 90s"), ("owner=nobody-of-that-name", "no such")]
    {
        let nginx = Nginx::http(&format!("sesscache STORE \"{options}\";"), "");
        let (accepted, said) = nginx.check();
        assert!(!accepted, "nginx -t accepts {options}");
        assert!(said.contains("[emerg] sesscache:") && said.contains(hint), "{options}: no help in\n{said}");
        assert!(said.contains("nginx.conf:"), "{options}: the message does not tell the line\n{said}");
    }
}

#[test]
fn a_second_cache_in_the_same_server_is_refused() {
    for own in ["shared:a:1m", "builtin", "builtin:100 shared:a:1m", "off"] {
        for (http, server) in [
            (format!("sesscache STORE; ssl_session_cache {own};"), String::new()),
            ("sesscache STORE;".into(), format!("ssl_session_cache {own};")),
            (format!("ssl_session_cache {own};"), "sesscache STORE;".into()),
        ] {
            let nginx = Nginx::http(&http, &server);
            let (accepted, said) = nginx.check();
            assert!(!accepted, "two caches for one server are accepted: {http} {server}");
            assert!(said.contains("remove \"ssl_session_cache\""), "the message does not tell what to do\n{said}");
        }
    }
    let nginx = Nginx::http("ssl_session_cache shared:a:1m;", "sesscache off;");
    let (accepted, said) = nginx.check();
    assert!(accepted, "sesscache off is not enough to keep nginx's own cache\n{said}");
}

#[test]
fn servers_of_one_address_with_different_caches_are_refused() {
    let other = "server { listen 127.0.0.1:PORT ssl; server_name b; SECOND }";
    for (first, second, right) in [
        ("", "sesscache STORE;", false),
        ("sesscache STORE;", "", false),
        ("sesscache STORE;", "sesscache STORE namespace=b;", false),
        ("sesscache STORE;", "sesscache STORE;", true),
    ] {
        let nginx = Nginx::http(&other.replace("SECOND", second), first);
        // The first block of the file is the default server.
        let (accepted, said) = nginx.check();
        assert_eq!(accepted, right, "default server {first:?}, other server {second:?}\n{said}");
        assert!(right || said.contains("must have the same \"sesscache\""), "no reason is given\n{said}");
    }
}

#[test]
fn ticket_keys_that_have_no_effect_are_told() {
    let nginx = Nginx::http("sesscache STORE; ssl_session_ticket_key SCRATCH/ticket.key;", "");
    fs::write(nginx.scratch.path().join("ticket.key"), [7_u8; 48]).expect("a ticket key");
    let (accepted, said) = nginx.check();
    assert!(accepted && said.contains("[warn] \"ssl_session_ticket_key\" has no effect"), "{said}");
}

#[test]
fn clients_are_resumed_from_the_store_and_the_log_stays_clean() {
    let mut nginx = Nginx::http("sesscache STORE \"capacity=8MiB disk=on\";", "");
    nginx.start();
    for version in VERSIONS {
        let first = nginx.get(version, &[version], "/");
        assert!(!first.resumed && first.said.contains("resumed . store 0"), "{version}: a first visit\n{}", first.said);
        for _ in 0..3 {
            let again = nginx.get(version, &[version], "/");
            assert!(again.resumed, "{version}: a client that comes back pays a full handshake\n{}", nginx.log());
            assert!(again.said.contains("resumed r store 1"), "{version}: the variables do not tell\n{}", again.said);
        }
    }
    if is_root() {
        let www_data = run(Command::new("id").args(["-u", "www-data"]), Duration::from_secs(10), "");
        let owner = fs::metadata(nginx.scratch.text("store")).expect("the store").uid();
        assert_eq!(www_data.stdout.trim(), owner.to_string(), "the store does not belong to the user of the workers");
    }
    for level in ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"] {
        assert_eq!(nginx.logged(level), Vec::<String>::new(), "the error log has news for the administrator");
    }
}

#[test]
fn the_status_page_counts() {
    let mut nginx = Nginx::http("sesscache STORE \"capacity=8MiB disk=on\";", "");
    nginx.start();
    for _ in 0..4 {
        nginx.get("s", &["-tls1_2"], "/");
    }
    let said = nginx.get("other", &["-tls1_2"], "/status").said;
    for line in ["sessions 2", "hits 3", "puts 2", "puts_busy 0", "misses_damaged 0", "capacity 8388608"] {
        assert!(said.lines().any(|l| l.trim() == line), "the status page does not say {line:?}\n{said}");
    }
    let said = nginx.get("other", &["-tls1_2"], "/status?json").said;
    let from = said.find("\r\n\r\n[").map_or_else(|| said.find("\n[{"), |at| Some(at + 3)).expect("a JSON list");
    let to = said.rfind("}]").expect("the end of a JSON list") + 2;
    let json: serde_json::Value = serde_json::from_str(&said[from..to]).unwrap_or_else(|e| panic!("{e}\n{said}"));
    assert_eq!(json[0]["hits"], 4, "{json}");
    assert_eq!(json[0]["path"], nginx.scratch.text("store"), "{json}");
    assert!(said.contains("Content-Type: application/json"), "{said}");
}

#[test]
fn a_session_of_one_server_name_is_not_taken_under_another() {
    let two = ["a", "b"].map(|name| {
        format!("server {{ listen 127.0.0.1:PORT ssl; server_name {name}; location / {{ return 200 {name}; }} }}")
    });
    let mut nginx = Nginx::http(&format!("sesscache STORE; {}", two.concat()), "");
    nginx.start();
    for version in VERSIONS {
        for name in ["a", "b"] {
            let session = format!("{name}{version}");
            let visit = || nginx.get(&session, &[version, "-servername", name], "/");
            visit();
            assert!(visit().resumed, "{version}: {name} is not resumed under its own name\n{}", nginx.log());
        }
        fs::copy(nginx.scratch.text(&format!("a{version}")), nginx.scratch.text("copy")).expect("copy a session");
        assert!(!nginx.get("copy", &[version, "-servername", "b"], "/").resumed, "{version}: another name is resumed");
        fs::remove_file(nginx.scratch.text("copy")).expect("remove a session");
    }
}

#[test]
fn the_session_timeout_of_nginx_holds() {
    let mut nginx = Nginx::http("sesscache STORE; ssl_session_timeout 6;", "");
    nginx.start();
    for version in VERSIONS {
        nginx.get(version, &[version], "/");
        assert!(nginx.get(version, &[version], "/").resumed, "{version}: not resumed within its time\n{}", nginx.log());
    }
    // Resuming does not prolong a session: its life counts from the full handshake.
    std::thread::sleep(Duration::from_secs(7));
    for version in VERSIONS {
        assert!(!nginx.get(version, &[version], "/").resumed, "{version}: resumed after ssl_session_timeout");
    }
}

/// nginx takes a handshake with a bad client certificate to its end and answers with an error page. A session made in
/// it would bring the same answer again and again, also after the client has got a better certificate.
#[test]
fn a_client_whose_certificate_was_refused_comes_back_without_session() {
    let (good, bad) = (Scratch::new("good"), Scratch::new("bad"));
    for authority in [&good, &bad] {
        let mut openssl = Command::new("openssl");
        openssl
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=client".split(' '));
        openssl.args(["-keyout", &authority.text("key"), "-out", &authority.text("cert")]);
        run(&mut openssl, Duration::from_secs(30), "").expect_success("openssl makes no certificate");
    }
    let verify = format!("ssl_client_certificate {}; ssl_verify_client on;", good.text("cert"));
    let mut nginx = Nginx::http("sesscache STORE;", &verify);
    nginx.start();
    for version in VERSIONS {
        let with = |who: &Scratch, session: &str| {
            nginx.get(session, &[version, "-cert", &who.text("cert"), "-key", &who.text("key")], "/")
        };
        let refused = with(&bad, &format!("bad{version}"));
        assert!(refused.said.contains("400 The SSL certificate error"), "{version}\n{}", refused.said);
        assert!(!with(&bad, &format!("bad{version}")).resumed, "{version}: a refused session is resumed");
        with(&good, &format!("good{version}"));
        assert!(
            with(&good, &format!("good{version}")).resumed,
            "{version}: a good one is not resumed\n{}",
            nginx.log()
        );
    }
}

#[test]
fn mail_and_stream_resume_whatever_is_loaded_first() {
    let modules = "load_module modules/ngx_mail_module.so; load_module modules/ngx_stream_module.so;"
        .replace("modules/", "/usr/lib/nginx/modules/");
    for (before, after) in [(modules.as_str(), ""), ("", modules.as_str())] {
        let mail = free_port();
        let blocks = format!(
            "mail {{ sesscache STORE; auth_http 127.0.0.1:1; CERTIFICATE ssl_protocols TLSv1.2 TLSv1.3;
               server {{ listen 127.0.0.1:{mail} ssl; protocol imap; }} }}
             stream {{ sesscache STORE; CERTIFICATE ssl_protocols TLSv1.2 TLSv1.3;
               server {{ listen 127.0.0.1:PORT ssl; return \"store $sesscache_resumed_from_store\\n\"; }} }}"
        );
        let mut nginx = Nginx::new(before, after, &blocks);
        nginx.start();
        for version in VERSIONS {
            for (what, port) in [("mail", mail), ("stream", nginx.port)] {
                let session = format!("{what}{version}");
                let visit = || nginx.visit(port, &session, &[version], "a1 LOGOUT\r\n");
                assert!(!visit().resumed);
                let again = visit();
                assert!(again.resumed, "{what} {version}: a client pays a full handshake\n{}", nginx.log());
                assert!(what == "mail" || again.said.contains("store 1"), "{version}: {}", again.said);
            }
        }
    }
}
