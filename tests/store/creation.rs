//! Workers start at the same instant. Whoever is first makes the store, and nobody may be left with one of his own, with
//! half a key or without any: a session put by one is found by the other, every time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{hex, monotonic, now, Data, Random, Scratch, Worker};

const TIMES: u64 = 1_000;

/// Lets all workers create the same store at the same instant, `times` times.
fn race(workers: &mut [Worker], options: &str, times: u64) {
    let scratch = Scratch::new("creation");
    for n in 0..times {
        let path = scratch.join(&format!("store-{n}"));
        let records: Vec<_> = (0..workers.len() as u64)
            .map(|who| (Random(n * 8 + who).id(32), Data { len: 100, seed: n * 8 + who }))
            .collect();
        let at = monotonic() + 300_000;
        for (worker, (id, data)) in workers.iter_mut().zip(&records) {
            worker.say(&format!("race {at} {} {} {} {} {options}", path.display(), hex(id), data.seed, now() + 600));
        }
        for worker in workers.iter_mut() {
            let answer = worker.hear();
            assert!(answer.starts_with("ok"), "attempt {n}: one of those who create a store cannot use it: {answer}");
        }
        for (who, worker) in workers.iter_mut().enumerate() {
            for (by, (id, data)) in records.iter().enumerate() {
                assert!(worker.get(id, *data), "attempt {n}: worker {who} does not find what worker {by} has put");
            }
        }
        for worker in workers.iter_mut() {
            worker.ask("close").expect("a cache that is closed");
        }
        let mut names: Vec<String> = fs::read_dir(&path)
            .expect("the store")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert!(
            matches!(&names[..], [control, key, generation] if control == "control" && key == "key" && generation.starts_with("v1-")),
            "attempt {n}: more than one store, or something unfinished, is left: {names:?}"
        );
        fs::remove_dir_all(&path).expect("remove the store");
    }
}

#[test]
fn two_processes_that_create_a_store_at_the_same_instant_share_it() {
    let mut workers = [0, 1].map(|_| Worker::start("serve", &[]));
    race(&mut workers, "deadline=10s", TIMES);
    workers.into_iter().for_each(Worker::finish);
}

#[test]
fn six_processes_that_create_a_guarded_store_at_the_same_instant_share_it() {
    let mut workers = [0; 6].map(|_| Worker::start("serve", &[]));
    race(&mut workers, "deadline=10s guard=on capacity=1MiB", TIMES / 20);
    workers.into_iter().for_each(Worker::finish);
}

#[test]
fn secrets_are_private_whatever_the_umask() {
    let scratch = Scratch::new("umask");
    for umask in ["000", "077", "777"] {
        for (options, file, directory) in [("", 0o600, 0o700), ("mode=0660", 0o660, 0o770)] {
            let path = scratch.join(&format!("store-{umask}-{file:o}"));
            let mut worker = Worker::start("serve", &[]);
            worker.ask(&format!("umask {umask}")).expect("a umask that is set");
            worker.reopen(&path, options).expect("a store that opens");
            worker.put(b"id", Data { len: 10, seed: 1 }, now() + 100).expect("a record that is stored");
            let mut all = vec![(path.clone(), directory)];
            for entry in fs::read_dir(&path).expect("the store").flatten() {
                let inside =
                    fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|inner| (inner.path(), file));
                all.extend(inside);
                all.push((entry.path(), if entry.path().is_dir() { directory } else { file }));
            }
            assert!(all.len() >= 7, "a store has fewer files than it should: {all:?}");
            for (path, mode) in all {
                let is = fs::metadata(&path).expect("metadata").permissions().mode() & 0o777;
                assert_eq!(is, mode, "umask {umask}, {options}: {} has mode {is:o}, not {mode:o}", path.display());
            }
            worker.finish();
        }
    }
}
