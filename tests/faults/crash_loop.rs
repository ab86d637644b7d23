//! A page of the store is damaged while servers have it open. LMDB believes its pages, so whoever meets that page dies, and so
//! does the worker that takes his place, and the next: a server that never comes up again. After a few deaths somebody has to
//! read the file without LMDB and begin a new store.
//! killed_workers.rs has the deaths that are nobody's fault but the killer's: there, all must stay.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{now, Data, Random, Scratch, Worker};

/// More deaths than this are a loop.
const PATIENCE: usize = 12;

fn data(seed: u64) -> Data {
    Data { len: 200, seed }
}

fn data_file(store: &Path) -> PathBuf {
    let mut entries = fs::read_dir(store).expect("the store").flatten().map(|entry| entry.path().join("data.mdb"));
    entries.find(|path| path.exists()).expect("a data file")
}

/// Every branch claims to have no children: LMDB aborts the process that comes by.
fn damage(file: &Path) {
    const BRANCH: u16 = 1;
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("the data file");
    let mut flags = [0; 2];
    let mut number = 2;
    while file.read_exact_at(&mut flags, number * 4_096 + 10).is_ok() {
        if u16::from_le_bytes(flags) & BRANCH != 0 {
            // The end of the list of nodes is where it begins, behind the page's header.
            file.write_all_at(&16_u16.to_le_bytes(), number * 4_096 + 12).expect("a page that is damaged");
        }
        number += 1;
    }
}

/// Lets new workers do this until one survives it; how many did not.
fn deaths(store: &Path, options: &str, mut work: impl FnMut(&mut Worker)) -> usize {
    for n in 0..PATIENCE {
        // As a supervisor does.
        std::thread::sleep(Duration::from_millis(300));
        let mut worker = Worker::start("serve", &[]);
        worker.say(&format!("open {} {options}", store.display()));
        worker.try_hear(Duration::from_secs(20));
        work(&mut worker);
        if worker.try_hear(Duration::from_secs(20)).is_some() {
            worker.finish();
            return n;
        }
    }
    PATIENCE
}

fn crash_loop(options: &str, command: impl Fn(u64) -> String) {
    let scratch = Scratch::new("loop");
    let path = scratch.join("store");
    let mut worker = Worker::open(&path, options);
    for seed in 0..500 {
        worker.put(&Random(seed).id(32), data(seed), now() + 600).expect("a record that is stored");
    }
    // It stays: the store is never free to be checked by who opens it first.
    let before = worker.stat("generation");
    damage(&data_file(&path));
    let mut seed = 0;
    let dead = deaths(&path, options, |worker| {
        seed += 1;
        worker.say(&command(seed));
    });
    assert!(dead > 0, "the damage kills nobody, so this shows nothing");
    assert!(dead < PATIENCE, "{options}: after {dead} deaths every worker still dies of the damaged page");
    let mut fresh = Worker::open(&path, options);
    assert!(fresh.stat("generation") > before, "the damaged store is still in use");
    fresh.put(b"new", data(7), now() + 600).expect("a record that is stored after the crash loop");
    assert!(fresh.get(b"new", data(7)), "nothing is found after the crash loop");
    fresh.finish();
}

const BOTH: [&str; 2] = ["capacity=4MiB deadline=1s", "capacity=4MiB deadline=1s guard=on"];

#[test]
fn a_crash_loop_of_writers_ends() {
    for options in BOTH {
        crash_loop(options, |seed| support::put_line(&Random(seed).id(32), data(seed), now() + 600));
    }
}

#[test]
fn a_crash_loop_of_readers_ends() {
    for options in BOTH {
        crash_loop(options, |seed| format!("get {}", support::hex(&Random(seed).id(32))));
    }
}
