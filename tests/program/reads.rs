//! Somebody looks at a live store to see how it does, and sees something else than is there, or has changed it by looking.

use sesscache::{COUNTERS, READINGS};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::program::{contents, exit_status, json, json_lines, number, sesscache, visit, word};
use support::{now, open, resume_client, run, Random, Scratch, Server, Tls};

/// Every verb that only looks.
const READING: [&[&str]; 7] = [
    &["stat"],
    &["list"],
    &["check"],
    &["doctor"],
    &["metrics"],
    &["watch", "--count", "1", "--interval", "100ms"],
    &[],
];

/// The arguments of a reading verb on a store.
fn on<'a>(verb: &[&'a str], store: &'a str) -> Vec<&'a str> {
    [verb, &[store]].concat()
}

#[test]
fn the_numbers_are_those_of_the_servers() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let server = Server::start("prefork_server", &["-s", &store, "-o", "deadline=10s"]);
    let resumed: u32 = [Tls::V12, Tls::V13].map(|tls| resume_client(server.port, 20, tls, &[]).resumed).iter().sum();

    let stat = json(&["--json", &store]);
    for row in COUNTERS.iter().chain(READINGS) {
        assert!(stat.get(row.name).is_some(), "a script that asks for {} gets nothing: {stat}", row.name);
    }
    assert_eq!(number(&stat, "hits"), u64::from(resumed), "hits are not the sessions that resumed");
    assert_eq!(number(&stat, "lookups"), number(&stat, "hits"), "nobody came with another session");
    assert_eq!(stat["hit_rate"].as_f64(), Some(1.0));
    assert!(number(&stat["last_minute"], "hits") <= number(&stat, "hits"));
    let workers = server.workers().len() as u64;
    assert!((1..=workers).contains(&number(&stat, "processes")), "{} of {workers}", number(&stat, "processes"));
    assert_eq!(stat["warnings"].as_array().map(Vec::len), Some(0), "a healthy store is warned of: {stat}");

    let list = json_lines(&["--json", "list", &store]);
    assert_eq!(list.len() as u64, number(&stat, "sessions"), "sessions that are counted are not listed");
    let ids: HashSet<String> = list.iter().map(|session| word(session, "id")).collect();
    assert_eq!(ids.len(), list.len(), "two sessions have one name");
    let protocols: HashSet<String> = list.iter().map(|session| word(session, "protocol")).collect();
    assert_eq!(protocols, ["TLS 1.2", "TLS 1.3"].map(str::to_owned).into(), "a protocol is not listed");
    for session in &list {
        assert_eq!(session["kind"], "session");
        assert!(number(session, "age") < 60 && number(session, "left") > 7_000, "wrong times: {session}");
    }
    let human = sesscache(&["list", &store]).expect_success("list fails").stdout;
    assert_eq!(human.lines().count(), list.len() + 1, "a line per session and a heading:\n{human}");
    let check = json(&["--json", "check", &store]);
    assert_eq!((number(&check, "intact"), number(&check, "damaged")), (list.len() as u64, 0));
    assert_eq!(server.stop(), "", "the server complains while somebody looks at its store");
}

#[test]
fn the_session_that_is_shown_is_the_one_that_the_client_has() {
    let scratch = Scratch::new("program");
    let (store, session) = (scratch.text("store"), scratch.text("session.pem"));
    let server = Server::start("prefork_server", &["-s", &store]);
    visit(server.port, &session);
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name).map(str::trim).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no '{name}' in\n{text}"))
    };
    let of_client = sess_id(&fs::read(&session).expect("the client's session"));
    let id = field(&of_client, "Session-ID:");

    let shown = sesscache(&["show", &store, &id]).expect_success("a session is not found by its id").stdout;
    let key = field(&of_client, "Master-Key:");
    assert!(!shown.contains(&key) && !shown.to_lowercase().contains(&id.to_lowercase()), "a secret is shown:\n{shown}");
    let short = shown.lines().next().expect("a first line").to_owned();
    let by_short = sesscache(&["show", &store, &short]).expect_success("a session is not found by its digits").stdout;
    assert_eq!(by_short.lines().next(), shown.lines().next(), "the digits lead to another session");

    let secrets = sesscache(&["show", &store, &short, "--secrets"]).expect_success("show --secrets fails").stdout;
    assert_eq!(field(&secrets, "Master-Key:"), key, "the key shown is not the client's");
    let pem = json(&["--json", "show", &store, &short, "--secrets", "--format", "pem"]);
    let of_store = sess_id(word(&pem, "pem").as_bytes());
    assert_eq!(field(&of_store, "Master-Key:"), key, "openssl reads another session from the PEM");
    assert_eq!(field(&of_store, "Session-ID:"), id);

    let absent = sesscache(&["show", &store, "00000000"]);
    assert_eq!(exit_status(&absent), 1, "{absent}");
}

/// What openssl says of a session in PEM.
fn sess_id(pem: &[u8]) -> String {
    let pem = String::from_utf8(pem.to_vec()).expect("PEM is ASCII");
    let mut command = Command::new("openssl");
    command.args(["sess_id", "-noout", "-text"]);
    run(&mut command, support::program::DEADLINE, &pem).expect_success("openssl cannot read the session").stdout
}

#[test]
fn a_directory_that_is_not_there_or_is_no_store_stays_as_it_is() {
    let scratch = Scratch::new("program");
    let (missing, empty) = (scratch.text("missing"), scratch.text("empty"));
    fs::create_dir(&empty).expect("a directory");
    support::set_mode(Path::new(&empty), 0o700);
    let changing: [&[&str]; 2] = [&["flush"], &["sweep"]];
    for verb in READING.iter().chain(&changing) {
        for path in [&missing, &empty] {
            let done = sesscache(&on(verb, path));
            assert_eq!(exit_status(&done), 1, "a store that is not there is not said to be missing\n{done}");
            if !verb.contains(&"doctor") || path == &missing {
                assert!(done.stderr.contains("there is no"), "nobody says why\n{done}");
            }
        }
    }
    for path in [&missing, &empty] {
        assert_eq!(exit_status(&sesscache(&["remove", path, "00000000"])), 1);
    }
    assert!(!Path::new(&missing).exists(), "looking for a store makes one");
    assert_eq!(contents(Path::new(&empty)), [], "looking for a store leaves files behind");
}

#[test]
fn looking_changes_nothing() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let cache = open(Path::new(&store), "");
    for _ in 0..100 {
        let id = cache.issue_id(Duration::from_secs(600)).expect("an id");
        cache.put(&id, b"something", now() + 600).expect("a record");
    }
    cache.put(b"of my own", b"something", now() + 600).expect("a record");
    // Reader slots are in the lock file.
    let look = || -> Vec<(String, Vec<u8>)> {
        contents(Path::new(&store)).into_iter().filter(|(name, _)| !name.ends_with("lock.mdb")).collect()
    };
    let before = look();
    assert!(before.len() >= 4, "there is a store to look at: {}", before.len());
    for verb in READING {
        sesscache(&on(verb, &store)).expect_success("a reading verb fails");
    }
    let after = look();
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is, "looking has changed {}", was.0);
    }
    assert_eq!(before.len(), after.len(), "looking has made a file");
}

#[test]
fn a_store_without_sessions_is_healthy() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    drop(open(Path::new(&store), "capacity=4MiB"));
    for verb in READING {
        sesscache(&on(verb, &store)).expect_success("a store that nobody has used yet is said to be unhealthy");
    }
    let stat = json(&["--json", &store]);
    assert_eq!((number(&stat, "sessions"), number(&stat, "capacity")), (0, 4 << 20));
    assert!(stat["hit_rate"].is_null() && stat["expires_first"].is_null(), "{stat}");
    assert_eq!(stat["notes"].as_array().map(Vec::len), Some(1), "nobody says that it is unused: {stat}");
    assert_eq!(json_lines(&["--json", "list", &store]).len(), 0);
}

#[test]
fn records_of_all_kinds_and_generations_are_listed() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let mut random = Random(7);
    let (mine, large) = (random.id(16), vec![7; 20_000]);
    let cache = open(Path::new(&store), "namespace=shop");
    cache.put(&mine, &large, now() + 100).expect("a record");
    drop(cache);
    // Another capacity begins another generation; the old one stays readable.
    let cache = open(Path::new(&store), "capacity=8MiB");
    let ours = cache.issue_id(Duration::from_secs(1_000)).expect("an id");
    cache.put(&ours, b"second", now() + 1_000).expect("a record");

    let list = json_lines(&["--json", "list", &store]);
    assert_eq!(list.len(), 2, "a record is not listed: {list:?}");
    let generations: HashSet<u64> = list.iter().map(|record| number(record, "generation")).collect();
    assert_eq!(generations.len(), 2, "the generation before is not looked into: {list:?}");
    let first = list.iter().find(|record| !record["namespace"].is_null()).expect("a record of the namespace");
    assert!(number(first, "bytes") > 20_000, "a record in several pieces is one record of their size: {first}");
    let soon = json_lines(&["--json", "list", &store, "--expires-within", "5m"]);
    assert_eq!(soon.len(), 1, "what expires later is listed, or what expires soon is not: {soon:?}");
    assert_eq!(json_lines(&["--json", "list", &store, "--limit", "1"]).len(), 1);

    let check = json(&["--json", "check", &store]);
    assert_eq!((number(&check, "intact"), number(&check, "other_namespace")), (2, 0), "{check}");
    let shown = json(&["--json", "show", &store, &support::hex(&mine), "--secrets"]);
    assert_eq!(support::unhex(&word(&shown, "data")), large, "other data are shown than were stored");
}

#[test]
fn readers_that_were_killed_are_seen() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let mut server = Server::start("prefork_server", &["-s", &store]);
    resume_client(server.port, 10, Tls::V12, &[]);
    // This process stays attached: the first to open a store that nobody has open finds no slot taken.
    let cache = open(Path::new(&store), "");
    let _ = cache.get(b"a lookup takes a slot", |_| ());
    cache.stats().expect("counters");
    let before = json(&["--json", &store]);
    assert!(number(&before, "processes") > 1 && number(&before, "readers_stale") == 0, "{before}");
    server.kill();
    for _look in 0..2 {
        let stat = json(&["--json", &store]);
        assert_eq!(number(&stat, "processes"), 1, "processes that are gone pass for attached ones: {stat}");
        assert_eq!(number(&stat, "readers_stale"), number(&before, "readers") - 1, "{stat}");
    }
}

#[test]
fn the_stores_of_a_host_are_listed_with_who_has_them_open() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let server = Server::start("prefork_server", &["-s", &store]);
    resume_client(server.port, 10, Tls::V12, &[]);
    let all = json_lines(&["--json", "ls"]);
    let ours = all.iter().find(|one| word(one, "path") == store).unwrap_or_else(|| panic!("not listed: {all:?}"));
    assert_eq!(ours["deleted"], false);
    let listed: Vec<u64> =
        ours["processes"].as_array().expect("processes").iter().map(|one| number(one, "pid")).collect();
    for worker in server.workers() {
        assert!(listed.contains(&u64::from(worker)), "worker {worker} is not listed: {ours}");
    }
    assert!(ours["processes"].as_array().expect("processes").iter().all(|one| word(one, "name") == "prefork_server"));
    let text = sesscache(&["ls"]).expect_success("ls fails").stdout;
    assert!(text.contains(&format!("{store}\n")) && text.contains("prefork_server"), "{text}");
    server.stop();
    let after = json_lines(&["--json", "ls"]);
    assert!(!after.iter().any(|one| word(one, "path") == store), "a store that nobody has open is listed: {after:?}");
}

#[test]
fn help_is_a_command() {
    let all = sesscache(&["help"]).expect_success("help is no command").stdout;
    assert!(all.contains("doctor") && all.contains("Usage: sesscache"), "{all}");
    let flush = sesscache(&["help", "flush"]).expect_success("no help for a command").stdout;
    assert!(flush.contains("--server-name") && flush.contains("--dry-run"), "{flush}");
}
