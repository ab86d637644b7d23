//! Somebody removes a session, forgets all of them or sweeps, and it comes back, or something else is gone.

use sesscache::{Cache, Status};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::program::{exit_status, json, json_lines, number, sesscache, visit, word};
use support::{hex, now, open, resume_client, Scratch, Server, Tls};

/// A record under an id of the store's own making.
fn put(cache: &Cache, life: u64) -> Vec<u8> {
    let id = cache.issue_id(Duration::from_secs(life)).expect("an id").to_vec();
    cache.put(&id, b"something", now() + life as i64).expect("a record");
    id
}

fn is_there(cache: &Cache, id: &[u8]) -> bool {
    match cache.get(id, |data| data == b"something") {
        Ok(same) => same,
        Err(error) if error.status == Status::NotFound => false,
        Err(error) => panic!("the store cannot be asked: {error}"),
    }
}

#[test]
fn a_removed_session_is_gone_in_a_process_that_has_the_store_open_and_no_other_is() {
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "namespace=shop");
    let ids: Vec<Vec<u8>> = (0..10).map(|_| put(&cache, 600)).collect();
    let mine = b"made elsewhere".to_vec();
    cache.put(&mine, b"something", now() + 600).expect("a record");

    for id in [&ids[3], &mine] {
        let short = word(&json(&["--json", "show", &path, &hex(id)]), "id");
        let removed = sesscache(&["remove", &path, &short]).expect_success("a session cannot be removed");
        assert!(removed.stdout.contains(&short), "{removed}");
        assert!(!is_there(&cache, id), "a removed session is still handed out");
        assert_eq!(exit_status(&sesscache(&["remove", &path, &short])), 1, "what is gone is removed again");
    }
    let left = ids.iter().filter(|id| is_there(&cache, id)).count();
    assert_eq!(left, 9, "sessions are gone that nobody removed");
    sesscache(&["remove", &path, &hex(&ids[0])]).expect_success("a session cannot be removed by its whole id");
    assert!(!is_there(&cache, &ids[0]));
    assert_eq!(cache.stats().expect("counters").get("removes"), Some(3), "removals are not counted");
}

#[test]
fn a_flush_forgets_everything_and_the_server_goes_on() {
    let scratch = Scratch::new("program");
    let (path, session) = (scratch.text("store"), scratch.text("session.pem"));
    let server = Server::start("prefork_server", &["-s", &path, "-o", "deadline=10s"]);
    visit(server.port, &session);
    let key = fs::read(Path::new(&path).join("key")).expect("a key");
    let sessions = number(&json(&["--json", &path]), "sessions");
    assert!(sessions > 0);

    let flushed = json(&["--json", "flush", &path]);
    assert_eq!(number(&flushed, "flushed"), sessions);
    assert_ne!(fs::read(Path::new(&path).join("key")).expect("a key"), key, "the old key still opens backups");
    assert_eq!(json_lines(&["--json", "list", &path]).len(), 0, "sessions are left after a flush");

    let tally = resume_client(server.port, 10, Tls::V12, &[]);
    assert_eq!(tally.resumed, tally.of, "after a flush new sessions do not resume");
    server.stop();
}

#[test]
fn a_sweep_deletes_what_has_expired_and_nothing_else() {
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "");
    let long = put(&cache, 600);
    let short: Vec<Vec<u8>> = (0..5).map(|_| put(&cache, 1)).collect();
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(json_lines(&["--json", "list", &path]).len(), 1, "expired sessions are listed");
    let limited = json(&["--json", "sweep", &path, "--limit", "2"]);
    assert_eq!(number(&limited, "swept"), 2);
    let rest = json(&["--json", "sweep", &path]);
    assert_eq!(number(&rest, "swept"), 3, "expired sessions are left behind");
    assert!(is_there(&cache, &long) && !short.iter().any(|id| is_there(&cache, id)));
}

#[test]
fn the_key_of_an_operator_is_neither_made_nor_replaced() {
    let scratch = Scratch::new("program");
    let (path, key) = (scratch.text("store"), scratch.text("operators.key"));
    fs::write(&key, [0x42; 32]).expect("a key file");
    support::set_mode(Path::new(&key), 0o600);
    let cache = open(Path::new(&path), &format!("key={key}"));
    put(&cache, 600);

    for verb in ["flush", "sweep", "check"] {
        let done = sesscache(&[verb, &path]);
        assert_ne!(exit_status(&done), 0, "{verb} works without the key\n{done}");
        assert!(!Path::new(&path).join("key").exists(), "{verb} makes a key that nobody else has");
    }
    sesscache(&["check", &path, "--key", &key]).expect_success("check does not use the key that it is given");
    sesscache(&["flush", &path, "--key", &key]).expect_success("flush does not take the key that it is given");
    assert_eq!(fs::read(&key).expect("a key file"), [0x42; 32], "the operator's key is replaced");
    assert_eq!(json_lines(&["--json", "list", &path]).len(), 0);
}

#[test]
fn files_keep_the_owner_that_they_have() {
    if !support::is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "owner=65534 mode=0660");
    put(&cache, 600);
    drop(cache);
    sesscache(&["flush", &path]).expect_success("root cannot flush the store of another user");
    put(&open(Path::new(&path), "owner=65534 mode=0660"), 600);
    sesscache(&["doctor", &path]).expect_success("after a flush by root the server cannot open its files");
    let meta = fs::metadata(Path::new(&path).join("key")).expect("a key");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (65_534, 0o660), "the new key is not the server's");
}

/// A visit over TLS 1.2 with a server name.
fn visit_name(port: u16, name: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-tls1_2", "-servername", name, "-connect", &format!("127.0.0.1:{port}")]);
    support::run(&mut command, support::program::DEADLINE, "bye\n").expect_success("openssl s_client cannot connect");
}

#[test]
fn one_server_name_is_listed_and_flushed_and_the_others_stay() {
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let server = Server::start("prefork_server", &["-s", &path, "-o", "deadline=10s"]);
    for name in ["leaked.example", "other.example", "leaked.example"] {
        visit_name(server.port, name);
    }
    let listed = |arguments: &[&str]| json_lines(&[&["--json", "list", &path], arguments].concat()).len();
    assert_eq!((listed(&[]), listed(&["--server-name", "Leaked.Example"])), (3, 2), "a name is not found by its text");
    assert_eq!(listed(&["--server-name", "no.example"]), 0);
    let key = fs::read(Path::new(&path).join("key")).expect("a key");

    let dry = json(&["--json", "flush", &path, "--server-name", "leaked.example", "--dry-run"]);
    assert_eq!((number(&dry, "would_flush"), listed(&[])), (2, 3), "a dry run deletes");
    let flushed = json(&["--json", "flush", &path, "--server-name", "leaked.example"]);
    assert_eq!(number(&flushed, "flushed"), 2);
    assert_eq!((listed(&[]), listed(&["--server-name", "other.example"])), (1, 1), "the wrong sessions are gone");
    assert_eq!(fs::read(Path::new(&path).join("key")).expect("a key"), key, "all others lose their key");
    server.stop();
}

#[test]
fn one_namespace_is_listed_and_flushed_and_the_others_stay() {
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let [shop, mail] = ["shop", "mail"].map(|name| open(Path::new(&path), &format!("namespace={name}")));
    let ids: Vec<Vec<u8>> = (0..5).map(|_| put(&shop, 600)).collect();
    let other = put(&mail, 600);
    assert_eq!(json_lines(&["--json", "list", &path, "--namespace", "shop"]).len(), 5);
    let wrong = sesscache(&["remove", &path, &hex(&other), "--namespace", "shop"]);
    assert!(exit_status(&wrong) == 1 && is_there(&mail, &other), "a record of another namespace is removed\n{wrong}");
    sesscache(&["flush", &path, "--namespace", "shop"]).expect_success("one namespace cannot be flushed");
    assert!(!ids.iter().any(|id| is_there(&shop, id)), "sessions of the namespace are left");
    assert!(is_there(&mail, &other), "another namespace is flushed as well");
}

#[test]
fn a_dry_run_says_what_would_go_and_deletes_nothing() {
    let scratch = Scratch::new("program");
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "");
    let id = put(&cache, 600);
    (0..3).for_each(|_| drop(put(&cache, 1)));
    let key = fs::read(Path::new(&path).join("key")).expect("a key");
    std::thread::sleep(Duration::from_millis(2_100));
    let sessions = number(&json(&["--json", &path]), "sessions");
    let sweep = json(&["--json", "sweep", &path, "--dry-run"]);
    assert_eq!(number(&sweep, "would_sweep"), sessions - 1, "a dry run says something else");
    let remove = sesscache(&["remove", &path, &hex(&id), "--dry-run"]).expect_success("a dry run fails");
    assert!(remove.stdout.starts_with("would remove "), "{remove}");
    let flush = json(&["--json", "flush", &path, "--dry-run"]);
    assert_eq!(number(&flush, "would_flush"), sessions);
    assert!(is_there(&cache, &id), "a dry run deletes");
    assert_eq!(fs::read(Path::new(&path).join("key")).expect("a key"), key, "a dry run makes a new key");
}
