//! The sealing keys: rotated while servers run, replaced by a flush, lost, or wrong. At worst sessions are missed and counted;
//! nothing is an error, and nothing sealed under a key that is gone is ever readable again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sesscache::{Cache, Status};
use support::{now, open, row, set_mode, Data, Random, Scratch, Worker};

fn data(seed: u64) -> Data {
    Data { len: 200, seed }
}

fn put(worker: &mut Worker, seed: u64) -> Vec<u8> {
    let id = worker.issue(Duration::from_secs(600));
    worker.put(&id, data(seed), now() + 600).expect("a record that is stored");
    id
}

/// As an operator does it: a new file in the place of the old one.
fn write_keys(path: &Path, keys: &[&[u8]]) {
    let new = path.with_extension("new");
    fs::write(&new, keys.concat()).expect("write the keys");
    set_mode(&new, 0o600);
    fs::rename(&new, path).expect("put the keys in place");
}

/// Running servers look at the file about once a second, when they are used.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + support::patience(Duration::from_secs(20));
    while !done() {
        assert!(Instant::now() < end, "after 20 s {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn rotated_keys_reach_running_servers_and_cost_no_session() {
    let scratch = Scratch::new("rotation");
    let path = scratch.join("store");
    let key = path.join("key");
    let mut workers = [0, 1].map(|_| Worker::open(&path, "deadline=1s"));
    let old = put(&mut workers[0], 1);
    let first = fs::read(&key).expect("the key");
    let second = Random(7).id(32);
    // The new key opens first, everywhere; only then does it seal.
    write_keys(&key, &[&first, &second]);
    std::thread::sleep(Duration::from_millis(1_100));
    for worker in &mut workers {
        assert!(worker.get(&old, data(1)), "another key in the file costs a session");
    }
    write_keys(&key, &[&second, &first]);
    let mut n = 2;
    let mut sealed = Vec::new();
    for _round in 0..25 {
        for (who, other) in [(0, 1), (1, 0)] {
            let id = put(&mut workers[who], n);
            assert!(workers[other].get(&id, data(n)), "while keys change, a new session is not found");
            sealed.push((id, n));
            n += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(workers[0].get(&old, data(1)), "a session of the first key is lost while the key is in the file");

    // The first key goes: what it sealed goes with it, what the second one sealed stays.
    write_keys(&key, &[&second]);
    wait_until("a session opens under a key that is gone", || !workers.iter_mut().any(|w| w.get(&old, data(1))));
    let (last, seed) = sealed.last().expect("some");
    for worker in &mut workers {
        assert!(worker.get(last, data(*seed)), "a session of the key that seals is lost");
    }
    assert!(workers[0].stat("misses_damaged") > 0, "nobody counts sessions whose key is gone");
    workers.into_iter().for_each(Worker::finish);
}

#[test]
fn running_servers_outlast_a_half_written_or_missing_key_file() {
    let scratch = Scratch::new("half");
    let path = scratch.join("store");
    let mut worker = Worker::open(&path, "");
    let id = put(&mut worker, 1);
    for content in [&b""[..], &[1; 31], &[1; 33]] {
        fs::write(path.join("key"), content).expect("write");
        std::thread::sleep(Duration::from_millis(1_100));
        for _ in 0..3 {
            assert!(
                worker.get(&id, data(1)),
                "a key file of {} bytes costs a running server its sessions",
                content.len()
            );
        }
        let new = put(&mut worker, 2);
        assert!(worker.get(&new, data(2)), "with a key file of {} bytes nothing is stored", content.len());
    }
    fs::remove_file(path.join("key")).expect("remove the key");
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(
        worker.get(&id, data(1)) && worker.get(&id, data(1)),
        "a missing key file costs a running server its sessions"
    );
}

#[test]
fn a_store_opened_with_the_wrong_key_misses_and_counts_it() {
    let scratch = Scratch::new("wrong");
    let (path, key) = (scratch.join("store"), scratch.join("my key"));
    write_keys(&key, &[&Random(1).id(32)]);
    let options = format!("key='{}'", key.display());
    let mut worker = Worker::open(&path, &options);
    let ids: Vec<_> = (0..20).map(|seed| put(&mut worker, seed)).collect();
    worker.finish();
    write_keys(&key, &[&Random(2).id(32)]);
    let cache = open(&path, &options);
    for id in &ids {
        let error = cache.get(id, |_| ()).expect_err("a session opens under a wrong key");
        assert_eq!(error.status, Status::NotFound, "a wrong key is more than a miss: {error}");
    }
    assert_eq!(
        row(&cache.stats().expect("statistics"), "misses_damaged"),
        20,
        "misses for a wrong key are not counted"
    );
    let mine = cache.issue_id(Duration::from_secs(60)).expect("an id");
    cache.put(&mine, b"new", now() + 60).expect("a record that is stored");
    assert_eq!(cache.get(&mine, <[u8]>::to_vec).expect("a new record"), b"new");
    drop(cache);
    // The key comes back: nothing was thrown away.
    write_keys(&key, &[&Random(2).id(32), &Random(1).id(32)]);
    let mut worker = Worker::open(&path, &options);
    for (seed, id) in ids.iter().enumerate() {
        assert!(worker.get(id, data(seed as u64)), "a session is lost although its key is back");
    }
}

/// Whether these bytes stand in any file of the store.
fn lies_in(store: &Path, bytes: &[u8]) -> bool {
    let mut found = false;
    for entry in fs::read_dir(store).expect("the store").flatten() {
        let inside = fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|inner| inner.path());
        for file in inside.chain([entry.path()]).filter(|path| path.is_file()) {
            let content = fs::read(&file).expect("a file of the store");
            found |= content.windows(bytes.len()).any(|window| window == bytes);
        }
    }
    found
}

#[test]
fn after_a_flush_nothing_that_was_stored_is_readable() {
    let scratch = Scratch::new("flush");
    let path = scratch.join("store");
    let cache = open(&path, "capacity=1MiB");
    let secret = Random(3).id(64);
    cache.put(b"id", &secret, now() + 600).expect("a record that is stored");
    assert!(!lies_in(&path, &secret[..16]), "the secret lies in a file in the clear");
    let before = fs::read(path.join("key")).expect("the key");
    let (control, copy) = (fs::read(path.join("control")).expect("control"), scratch.join("copy"));
    copy_tree(&path, &copy);
    cache.flush().expect("a flush");
    let after = fs::read(path.join("key")).expect("the key");
    assert_ne!(before, after, "a flush keeps the key, so a backup of the store stays readable with it");
    assert!(cache.get(b"id", |_| ()).is_err(), "a flushed record is there");
    // The backup with the new key: nothing opens.
    fs::write(copy.join("key"), &after).expect("write the key");
    let backup = open(&copy, "capacity=1MiB");
    assert!(backup.get(b"id", |_| ()).is_err(), "a backup opens under the key of after the flush");
    drop(backup);
    // The counterpart: with the old key it does.
    fs::write(copy.join("control"), control).expect("write the control file");
    fs::write(copy.join("key"), &before).expect("write the key");
    let backup = open(&copy, "capacity=1MiB");
    assert_eq!(backup.get(b"id", <[u8]>::to_vec).expect("the backup's record"), secret);
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    set_mode(to, 0o700);
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let scratch = Scratch::new("loose");
    let path = scratch.join("store");
    drop(open(&path, ""));
    set_mode(&path.join("key"), 0o644);
    let options = sesscache::Options::parse("").expect("options");
    let error = Cache::open(&path, &options).expect_err("a key that everybody may read is refused");
    assert!(error.to_string().contains("chmod 0600"), "the message does not say what to type: {error}");
    set_mode(&path.join("key"), 0o600);
    open(&path, "");
}

#[test]
fn a_core_dump_leaves_the_sessions_out() {
    for options in ["capacity=1MiB", "capacity=1MiB guard=on"] {
        let scratch = Scratch::new("core");
        let path = scratch.join("store");
        let cache = open(&path, options);
        cache.put(b"id", b"a session", now() + 600).expect("a record that is stored");
        let maps = fs::read_to_string("/proc/self/smaps").expect("the mappings of this process");
        let mut left_out = Vec::new();
        let mut of = None;
        for line in maps.lines() {
            let name = line.split_whitespace().nth(5).filter(|name| name.starts_with(path.to_str().expect("UTF-8")));
            if line.split('-').next().is_some_and(|start| u64::from_str_radix(start, 16).is_ok()) {
                of = name.map(|name| name.rsplit('/').next().unwrap_or_default().to_owned());
            }
            if let (Some(file), Some(flags)) = (&of, line.strip_prefix("VmFlags:")) {
                // The lock file holds process numbers.
                assert!(
                    file == "lock.mdb" || flags.contains(" dd"),
                    "{options}: a core dump of the server holds {file}"
                );
                left_out.push(file.clone());
            }
        }
        for file in ["control", "data.mdb", "gate"] {
            assert!(
                left_out.iter().any(|found| found == file),
                "{options}: {file} is not mapped, so this shows nothing"
            );
        }
    }
}
