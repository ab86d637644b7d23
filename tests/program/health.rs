//! A store is not well, or cannot be looked into, and the program says so: in its words, its exit status and its metrics.

use serde_json::Value;
use sesscache::Cache;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::program::{exit_status, json, number, sesscache, DEADLINE};
use support::{now, open, run, stage, wait_until, Scratch};

/// What is done to a data file.
type Damage = fn(&fs::File);

fn put(cache: &Cache, n: u8) -> Vec<u8> {
    let id = cache.issue_id(Duration::from_secs(600)).expect("an id").to_vec();
    cache.put(&id, &[n; 100], now() + 600).expect("a record");
    id
}

fn filled(scratch: &Scratch) -> String {
    let path = scratch.text("store");
    let cache = open(Path::new(&path), "");
    let ids: Vec<Vec<u8>> = (0..100).map(|n| put(&cache, n)).collect();
    cache.get(&ids[0], |_| ()).expect("a record");
    path
}

fn file_of_generation(store: &str, name: &str) -> PathBuf {
    let entries = fs::read_dir(store).expect("a store").flatten().map(|entry| entry.path());
    entries.map(|path| path.join(name)).find(|path| path.exists()).unwrap_or_else(|| panic!("no {name}"))
}

/// What `sesscache metrics` says of `sesscache_up`, and its exit status.
fn up(store: &str) -> (bool, i32) {
    let done = sesscache(&["metrics", store]);
    let line = done.stdout.lines().find(|line| line.starts_with("sesscache_up{"));
    let line = line.unwrap_or_else(|| panic!("nobody says whether the store is up\n{done}"));
    (line.ends_with(" 1"), exit_status(&done))
}

fn warnings(store: &str) -> (String, i32) {
    let done = sesscache(&["--json", store]);
    let stat: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}\n{done}"));
    (stat["warnings"].to_string(), exit_status(&done))
}

#[test]
fn a_damaged_data_file_is_down_for_metrics_and_for_list() {
    let damages: [(&str, Damage); 3] = [
        ("zeroed", |file| file.write_all_at(&vec![0; 1 << 20], 0).expect("zeros")),
        ("cut", |file| file.set_len(8192).expect("a shorter file")),
        ("overwritten", |file| file.write_all_at(&vec![0xa5; 1 << 20], 0).expect("other bytes")),
    ];
    for (how, damage) in damages {
        let scratch = Scratch::new("program-health");
        let store = filled(&scratch);
        assert_eq!(up(&store), (true, 0), "a store that is well is said to be down");
        let data = file_of_generation(&store, "data.mdb");
        damage(&fs::OpenOptions::new().write(true).open(data).expect("the data file"));
        assert_eq!(up(&store), (false, 1), "a data file that was {how} is up");
        let list = sesscache(&["list", &store]);
        assert_eq!(exit_status(&list), 1, "the list of a data file that was {how} is complete\n{list}");
        assert!(list.stderr.contains("damaged"), "{list}");
        let (said, status) = warnings(&store);
        assert!(status == 1 && said.contains("damaged"), "{how}: {said}");
    }
}

#[test]
fn a_generation_without_its_page_is_damage_and_not_a_new_store() {
    let scratch = Scratch::new("program-health");
    let store = filled(&scratch);
    fs::remove_file(file_of_generation(&store, "gate")).expect("the page goes");
    let (said, status) = warnings(&store);
    assert!(status == 1 && said.contains("gate is missing"), "nobody says what happened: {said}");
    assert_eq!(up(&store), (false, 1));
    let doctor = sesscache(&["doctor", &store]);
    assert!(exit_status(&doctor) == 1 && doctor.stdout.contains("gate is missing"), "{doctor}");
}

#[test]
fn a_key_file_that_was_replaced_or_is_gone_is_warned_of() {
    let scratch = Scratch::new("program-health");
    let store = filled(&scratch);
    let stat = json(&["--json", &store]);
    assert_eq!((number(&stat, "newest_open"), number(&stat, "newest_unreadable")), (4, 0), "{stat}");
    let key = Path::new(&store).join("key");
    fs::write(&key, [9; 32]).expect("another key");
    let (said, status) = warnings(&store);
    assert!(status == 1 && said.contains("do not open with the sealing keys"), "31 records nobody can read: {said}");
    let doctor = sesscache(&["doctor", &store]);
    assert!(exit_status(&doctor) == 1 && doctor.stdout.contains("do not open with these keys"), "{doctor}");
    fs::remove_file(&key).expect("the key goes");
    let (said, status) = warnings(&store);
    assert!(status == 1 && said.contains("the key file") && said.contains("is gone"), "a key is gone: {said}");
}

/// The program is not told where the key is: it goes by what a process with the key has found out.
#[test]
fn those_without_the_keys_learn_from_the_processes_that_have_them() {
    let scratch = Scratch::new("program-health");
    let (store, key) = (scratch.text("store"), scratch.text("operators.key"));
    let set_key = |byte: u8| {
        fs::write(&key, [byte; 32]).expect("a key file");
        support::set_mode(Path::new(&key), 0o600);
    };
    set_key(1);
    let cache = open(Path::new(&store), &format!("key={key}"));
    let ids: Vec<Vec<u8>> = (0..10).map(|n| put(&cache, n)).collect();
    let trial = || {
        // Some thread of a server comes along.
        let _ = cache.get(&ids[0], |_| ());
        let stat = sesscache(&["--json", &store]);
        let stat: Value = serde_json::from_str(&stat.stdout).expect("JSON");
        (stat["newest_open"].as_u64(), stat["newest_unreadable"].as_u64(), stat["newest_tried"].as_u64())
    };
    let patience = Duration::from_secs(40);
    assert!(wait_until(patience, || matches!(trial(), (Some(4), Some(0), Some(_)))), "nobody tries: {:?}", trial());
    assert_eq!(warnings(&store), ("[]".to_owned(), 0), "a key that is kept elsewhere is missed");
    set_key(2);
    assert!(
        wait_until(patience, || matches!(trial(), (Some(0), Some(4), _))),
        "other keys go unnoticed: {:?}",
        trial()
    );
    let (said, status) = warnings(&store);
    assert!(status == 1 && said.contains("do not open with the sealing keys"), "{said}");
}

#[test]
fn a_metrics_file_says_that_the_store_is_gone() {
    let scratch = Scratch::new("program-health");
    let store = filled(&scratch);
    let file = scratch.text("sesscache.prom");
    sesscache(&["metrics", &store, "--output", &file]).expect_success("metrics cannot be written");
    fs::remove_dir_all(&store).expect("the store goes");
    let done = sesscache(&["metrics", &store, "--output", &file]);
    assert_eq!(exit_status(&done), 1, "{done}");
    let text = fs::read_to_string(&file).expect("metrics");
    assert!(text.contains(&format!("sesscache_up{{path=\"{store}\"}} 0\n")), "a collector reads for ever:\n{text}");
}

#[test]
fn one_store_has_one_path_label() {
    let scratch = Scratch::new("program-health");
    let store = filled(&scratch);
    let label = |path: &str| {
        let mut command = support::staged("sesscache");
        let done = run(command.args(["metrics", path]).current_dir(scratch.path()), DEADLINE, "");
        let line = done.stdout.lines().find(|line| line.starts_with("sesscache_up{")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{done}"))
    };
    let link = scratch.text("link");
    std::os::unix::fs::symlink(scratch.path(), &link).expect("a link");
    for path in ["store", "store/", "./store", "../{}/store", "link/store", &store] {
        let name = scratch.path().file_name().expect("a name").to_string_lossy();
        let path = path.replace("{}", &name);
        assert_eq!(label(&path), format!("sesscache_up{{path=\"{store}\"}} 1"), "{path} is another store");
    }
}

#[test]
fn who_is_attached_is_unknown_where_it_cannot_be_seen() {
    if !support::is_root() {
        return eprintln!("skipped: only root can mount");
    }
    let scratch = Scratch::new("program-health");
    let store = scratch.text("store");
    let cache = open(Path::new(&store), "");
    let id = put(&cache, 1);
    cache.get(&id, |_| ()).expect("a record");
    assert_eq!(number(&json(&["--json", &store]), "processes"), 1);
    let program = stage().join("bin/sesscache");
    let read_only = |arguments: &str| {
        let script = format!(
            "mount --bind {store} {store} && mount -o remount,bind,ro {store} && {} {arguments} {store}",
            program.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).env("LD_LIBRARY_PATH", stage().join("lib"));
        run(&mut command, DEADLINE, "").expect_success("a store that is mounted to be read only cannot be looked at")
    };
    let stat: Value = serde_json::from_str(&read_only("--json").stdout).expect("JSON");
    for name in ["processes", "readers", "readers_stale"] {
        assert!(stat[name].is_null(), "{name} is claimed to be known: {stat}");
    }
    assert_eq!(number(&stat, "sessions"), 1);
    let text = read_only("stat").stdout;
    assert!(text.contains("processes   unknown"), "{text}");
    assert!(!read_only("metrics").stdout.contains("sesscache_processes"), "a number is made up");
    assert!(read_only("doctor").stdout.contains("unknown"), "doctor counts nobody");
}
