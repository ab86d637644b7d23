//! Something is wrong with a store, and the program that is asked says that all is well; or cries over nothing.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::program::{exit_status, json, number, sesscache, word};
use support::{hex, now, open, run, set_mode, Scratch};

/// A store with some records, and their ids.
fn filled(scratch: &Scratch) -> (String, Vec<Vec<u8>>) {
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "");
    let put = |n: u8| {
        let id = cache.issue_id(Duration::from_secs(600)).expect("an id").to_vec();
        cache.put(&id, &[n; 100], now() + 600).expect("a record");
        id
    };
    let ids = (0..20).map(put).collect();
    (path, ids)
}

fn data_file(store: &str) -> PathBuf {
    let generations = fs::read_dir(store).expect("a store").flatten().map(|entry| entry.path());
    generations.map(|path| path.join("data.mdb")).find(|path| path.exists()).expect("a data file")
}

/// Changes a byte of the sealed data of a record, where it lies in the file: the value follows its key.
fn damage(store: &str, id: &[u8]) {
    let path = data_file(store);
    let bytes = fs::read(&path).expect("the data file");
    // The part that is the same in the key.
    let tail = &id[12..];
    let mut changed = 0;
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the data file");
    // Pages that were copied on write are still in the file: all copies are changed.
    for (at, _) in bytes.windows(tail.len()).enumerate().filter(|(_, window)| *window == tail) {
        let sealed = at + tail.len() + 28 + 12 + 10;
        file.write_all_at(&[bytes[sealed] ^ 1], sealed as u64).expect("a byte is changed");
        changed += 1;
    }
    assert!(changed > 0, "the record is not in {}", path.display());
}

#[test]
fn a_damaged_record_is_found_and_named() {
    let scratch = Scratch::new("program");
    let (store, ids) = filled(&scratch);
    sesscache(&["check", &store]).expect_success("a whole store is said to be damaged");
    let short = word(&json(&["--json", "show", &store, &hex(&ids[7])]), "id");
    damage(&store, &ids[7]);
    let done = sesscache(&["check", &store]);
    assert_eq!(exit_status(&done), 1, "a damaged record passes for whole\n{done}");
    assert!(done.stdout.contains(&short), "nobody learns which record is damaged\n{done}");
    let done = sesscache(&["--json", "check", &store]);
    let check: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((check["intact"].as_u64(), check["damaged"].as_u64()), (Some(19), Some(1)), "{done}");
    let shown = sesscache(&["show", &store, &short, "--secrets"]);
    assert_eq!(exit_status(&shown), 1, "what is damaged is shown as if it were not\n{shown}");
}

/// A record of a namespace, and its id.
fn put_in(store: &str, namespace: &str) -> Vec<u8> {
    let cache = open(Path::new(store), &format!("namespace={namespace}"));
    let id = cache.issue_id(Duration::from_secs(600)).expect("an id").to_vec();
    cache.put(&id, namespace.as_bytes(), now() + 600).expect("a record");
    id
}

fn counts(check: &Value) -> [u64; 3] {
    ["intact", "damaged", "other_namespace"].map(|name| number(check, name))
}

#[test]
fn a_damaged_record_of_a_namespace_is_found_by_those_who_do_not_know_its_name() {
    let scratch = Scratch::new("program");
    let (store, _) = filled(&scratch);
    let ids = ["shop", "mail"].map(|name| put_in(&store, name));
    let check = json(&["--json", "check", &store]);
    assert_eq!(counts(&check), [22, 0, 0], "records of a namespace that was not named are not opened: {check}");
    let shown = json(&["--json", "show", &store, &hex(&ids[1]), "--secrets"]);
    assert_eq!(word(&shown, "data"), hex(b"mail"), "a record of a namespace is not shown without its name");
    damage(&store, &ids[0]);
    let done = sesscache(&["--json", "check", &store]);
    assert_eq!(exit_status(&done), 1, "a damaged record of a namespace passes for whole\n{done}");
    let check: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(counts(&check), [21, 1, 0], "{done}");
    let text = sesscache(&["check", &store, "--namespace", "shpo"]).stdout;
    assert!(text.contains("no record belongs to the namespace shpo"), "a misspelt name goes unnoticed:\n{text}");
}

/// More namespaces than the store tells apart.
#[test]
fn a_namespace_that_was_not_named_is_no_damage() {
    let scratch = Scratch::new("program");
    let store = scratch.text("store");
    let ids: Vec<Vec<u8>> = (0..40).map(|n| put_in(&store, &format!("shop{n}"))).collect();
    let check = json(&["--json", "check", &store]);
    let [whole, damaged, other] = counts(&check);
    assert_eq!((whole + other, damaged), (40, 0), "a record is lost, or a healthy store passes for damaged: {check}");
    assert!((1..=9).contains(&other), "namespaces that the store knows have to be named: {check}");
    let hashes: Vec<String> =
        check["other_namespaces"].as_array().expect("a list").iter().map(|one| word(one, "namespace")).collect();
    assert_eq!(hashes.len() as u64, other, "{check}");

    let text = sesscache(&["check", &store]).expect_success("a namespace that was not named is an error").stdout;
    for hash in &hashes {
        assert!(text.contains(&format!("    {hash}  1 record\n")), "nobody learns of {hash}:\n{text}");
    }
    assert!(text.contains(&format!("not opened: {other} records")) && text.contains("--namespace NAME"), "{text}");
    let listed = sesscache(&["list", &store]).expect_success("list fails").stdout;
    assert!(hashes.iter().all(|hash| listed.contains(hash.as_str())), "list has other hashes:\n{listed}");

    let records: Vec<Value> = ids.iter().map(|id| json(&["--json", "show", &store, &hex(id)])).collect();
    let at: Vec<usize> = (0..40).filter(|at| hashes.contains(&word(&records[*at], "namespace"))).collect();
    let unnamed = sesscache(&["--json", "show", &store, &hex(&ids[at[0]]), "--secrets"]);
    assert_eq!(exit_status(&unnamed), 2, "a missing argument passes for damage, or for nothing\n{unnamed}");
    let shown: Value = serde_json::from_str(&unnamed.stdout).expect("JSON");
    assert!(shown["damage"].is_null() && word(&shown, "not_shown").contains("--namespace NAME"), "{shown}");

    let names: Vec<String> = at.iter().map(|at| format!("shop{at}")).collect();
    let mut named = vec!["--json", "check", &store];
    named.extend(names.iter().flat_map(|name| ["--namespace", name.as_str()]));
    assert_eq!(counts(&json(&named)), [40, 0, 0], "naming the namespaces does not help");
    let (id, name) = (hex(&ids[at[0]]), names[0].as_str());
    let shown = json(&["--json", "show", &store, &id, "--secrets", "--namespace", "other", "--namespace", name]);
    assert_eq!(word(&shown, "data"), hex(name.as_bytes()), "the second --namespace is not looked at");
}

#[test]
fn records_whose_key_is_gone_are_found() {
    let scratch = Scratch::new("program");
    let (store, ids) = filled(&scratch);
    let key = Path::new(&store).join("key");
    fs::write(&key, [9; 32]).expect("another key");
    let done = sesscache(&["--json", "check", &store]);
    let check: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(exit_status(&done), 1, "{done}");
    assert_eq!(check["damaged"].as_u64(), Some(ids.len() as u64), "{done}");
    assert!(done.stdout.contains("under a key that is not in the key file"), "nobody says why\n{done}");
}

#[test]
fn a_store_that_is_damaged_as_a_whole_is_found() {
    let scratch = Scratch::new("program");
    let (store, _) = filled(&scratch);
    let data = data_file(&store);
    fs::OpenOptions::new().write(true).open(&data).expect("the data file").set_len(4096).expect("a shorter file");
    for verb in ["stat", "check", "doctor"] {
        let done = sesscache(&[verb, &store]);
        assert_eq!(exit_status(&done), 1, "{verb} says that all is well\n{done}");
        assert!(done.stdout.contains("is damaged"), "{verb} does not say what is wrong\n{done}");
    }
    fs::write(Path::new(&store).join("control"), b"nonsense").expect("a damaged control file");
    for verb in ["stat", "check", "doctor"] {
        let done = sesscache(&[verb, &store]);
        assert_eq!(exit_status(&done), 1, "{verb} says that all is well\n{done}");
    }
}

/// Breaks something, has doctor find it, types what it says, and expects it to be content.
fn assert_doctor_knows_what_to_type(break_it: impl FnOnce(&Path)) {
    let scratch = Scratch::new("program");
    let (store, _) = filled(&scratch);
    sesscache(&["doctor", &store]).expect_success("doctor finds something wrong with a healthy store");
    break_it(Path::new(&store));
    let done = sesscache(&["--json", "doctor", &store]);
    assert_eq!(exit_status(&done), 1, "doctor is content with what it should not be\n{done}");
    let findings: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    let remedies = findings.as_array().expect("findings").iter().filter_map(|finding| finding["remedy"].as_str());
    let remedies: Vec<&str> = remedies.collect();
    assert!(!remedies.is_empty(), "doctor does not say what to type\n{done}");
    for remedy in remedies {
        run(Command::new("sh").args(["-c", remedy]), support::program::DEADLINE, "")
            .expect_success("what doctor says to type does not work");
    }
    sesscache(&["doctor", &store]).expect_success("what doctor says to type does not help");
}

#[test]
fn doctor_mends_a_directory_that_is_open_to_others() {
    assert_doctor_knows_what_to_type(|store| set_mode(store, 0o755));
}

#[test]
fn doctor_mends_a_key_that_others_may_read() {
    assert_doctor_knows_what_to_type(|store| set_mode(&store.join("key"), 0o644));
}

#[test]
fn doctor_mends_a_data_file_that_others_may_read() {
    assert_doctor_knows_what_to_type(|store| set_mode(&data_file(support::text(store)), 0o606));
}

#[test]
fn doctor_mends_files_of_another_owner() {
    if support::is_root() {
        assert_doctor_knows_what_to_type(|store| {
            std::os::unix::fs::chown(store.join("control"), Some(65_534), None).expect("another owner");
        });
    } else {
        eprintln!("skipped: only root can give files away");
    }
}

#[test]
fn those_who_may_not_read_a_store_learn_who_may() {
    if !support::is_root() {
        return eprintln!("skipped: only root can run the program as somebody else");
    }
    let scratch = Scratch::new("program");
    let (store, _) = filled(&scratch);
    set_mode(scratch.path(), 0o755);
    let program = scratch.text("sesscache");
    support::copy_program(&support::stage().join("bin/sesscache"), Path::new(&program));
    for verb in ["stat", "list", "check", "doctor"] {
        let mut command = Command::new(&program);
        let done = run(command.args([verb, &store]).uid(65_534).current_dir("/"), support::program::DEADLINE, "");
        assert!(!done.status.success(), "a store of root's is read by others\n{done}");
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.contains("as root, or as user 0"), "{verb} does not say who may read the store\n{done}");
    }
}

#[test]
fn wrong_usage_and_what_the_system_refuses_end_with_2() {
    let scratch = Scratch::new("program");
    let (store, _) = filled(&scratch);
    let file = scratch.text("file");
    fs::write(&file, "").expect("a file");
    let cases: [&[&str]; 9] = [
        &[],
        &["--nonsense", &store],
        &["lsit", &store],
        &["list", &store, "--expires-within", "5"],
        &["show", &store, "xyz"],
        &["show", &store, "00000000", "--format", "pem"],
        &["stat", &file],
        &["metrics", &store, "--output", "/nonexistent/file"],
        &["bench", "/nonexistent/directory/store"],
    ];
    for arguments in cases {
        let done = sesscache(arguments);
        assert_eq!(exit_status(&done), 2, "{done}");
        assert!(!done.stderr.is_empty() && done.stdout.is_empty(), "an error belongs on stderr\n{done}");
    }
    let help = sesscache(&["--help"]).expect_success("--help is no error");
    assert!(help.stdout.contains("doctor"), "{help}");
    sesscache(&["--version"]).expect_success("--version is no error");
}
