//! Every file of a store is damaged, before it is opened and while it is open; and a record where it lies. A wrong session is
//! never returned, and what is found when the store is opened ends nobody. damaged_file.rs has LMDB's own pages.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{hex, now, Data, Random, Scratch, Worker};

const OPTIONS: &str = "capacity=1MiB deadline=1s disk=on";

fn data(seed: u64) -> Data {
    Data { len: 224, seed }
}

fn file(store: &Path, name: &str) -> PathBuf {
    if ["control", "key"].contains(&name) {
        return store.join(name);
    }
    let mut all: Vec<PathBuf> = fs::read_dir(store).expect("the store").flatten().map(|entry| entry.path()).collect();
    all.retain(|path| path.is_dir() && path.join(name).exists());
    all.sort();
    all.pop().expect("a generation").join(name)
}

/// Damages a file in one of these ways; `older` is a copy from when the store was new.
fn damage(path: &Path, way: &str, older: &[u8], random: &mut Random) {
    let len = fs::metadata(path).expect("a file").len();
    let open = || fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    match way {
        "truncated" => open().set_len(random.below(len)).expect("a shorter file"),
        "zeroed" => open().write_all_at(&vec![0; len as usize], 0).expect("a file"),
        "bit flipped" => {
            let (at, mut byte) = (random.below(len.min(512)), [0]);
            open().read_exact_at(&mut byte, at).expect("a byte");
            byte[0] ^= 1 << random.below(8);
            open().write_all_at(&byte, at).expect("a byte");
        }
        "older" => open().write_all_at(older, 0).expect("a file"),
        _ => {
            fs::remove_file(path).expect("a file that goes");
            match way {
                "directory" => fs::create_dir(path).expect("a directory"),
                "symlink" => std::os::unix::fs::symlink("/etc/passwd", path).expect("a link"),
                "fifo" => {
                    let made = std::process::Command::new("mkfifo").arg(path).status();
                    assert!(made.is_ok_and(|made| made.success()), "no fifo is made");
                }
                _ => {}
            }
        }
    }
}

const FILES: [&str; 5] = ["control", "key", "gate", "data.mdb", "lock.mdb"];
const WAYS: [&str; 8] = ["truncated", "zeroed", "bit flipped", "older", "directory", "symlink", "fifo", "deleted"];

/// Uses the store; false when the process died of it. A wrong record fails the test.
fn survives(worker: &mut Worker) -> bool {
    for seed in (0..60).chain(100..160) {
        for line in [
            format!("get {}", hex(&Random(seed).id(32))),
            support::put_line(&Random(seed + 100).id(32), data(seed + 100), now() + 600),
        ] {
            if worker.ended().is_some() {
                return false;
            }
            worker.say(&line);
            let Some(answer) = worker.try_hear(Duration::from_secs(30)) else { return false };
            let found = line.starts_with("get") && answer.starts_with("ok ");
            assert!(!found || answer == format!("ok {}", data(seed).digest()), "another record is returned: {answer}");
        }
    }
    true
}

/// Damages a file, before the store is opened or while it is open: who died, and whether new workers can use the store.
fn try_one(name: &str, way: &str, while_open: bool, seed: u64) -> (bool, bool) {
    let scratch = Scratch::new("damaged");
    let path = scratch.join("store");
    let mut worker = Worker::open(&path, OPTIONS);
    worker.put(&Random(0).id(32), data(0), now() + 600).expect("a record that is stored");
    let older = fs::read(file(&path, name)).expect("a file");
    for seed in 1..60 {
        worker.put(&Random(seed).id(32), data(seed), now() + 600).expect("a record that is stored");
    }
    if !while_open {
        worker.finish();
        damage(&file(&path, name), way, &older, &mut Random(seed));
        worker = Worker::start("serve", &[]);
        if worker.reopen(&path, OPTIONS).is_err() {
            return (false, false);
        }
    } else {
        damage(&file(&path, name), way, &older, &mut Random(seed));
    }
    let died = !survives(&mut worker);
    drop(worker);
    let mut next = Worker::start("serve", &[]);
    let again = next.reopen(&path, OPTIONS).is_ok()
        && next.put(b"afterwards", data(7), now() + 600).is_ok()
        && next.get(b"afterwards", data(7));
    (died, again)
}

#[test]
fn a_damaged_file_ends_no_server_and_gives_no_wrong_session() {
    let mut deaths = Vec::new();
    for while_open in [false, true] {
        for name in FILES {
            for way in WAYS {
                for seed in 0..support::tries(1, 10) {
                    let (died, again) = try_one(name, way, while_open, seed);
                    if died || !again {
                        let when = if while_open { "while open" } else { "before" };
                        println!("{name} {way} {when}: died {died}, used again {again}");
                    }
                    assert!(!died || while_open, "{name} {way}: what is found at the opening ends the process");
                    if died {
                        deaths.push(format!("{name} {way}"));
                    }
                }
            }
        }
    }
    println!("deaths while open: {deaths:?}");
}

/// Bytes of the record that is damaged: header and nonce, text, tag.
const RECORD: usize = 40 + 224 + 16;
/// Mutations of it, in either kind of store.
const MUTATIONS: usize = 5_000;

#[test]
fn a_record_with_a_flipped_bit_or_other_bytes_is_a_miss() {
    for options in [OPTIONS, "capacity=1MiB deadline=1s guard=on"] {
        let scratch = Scratch::new("record");
        let path = scratch.join("store");
        let mut worker = Worker::open(&path, options);
        let id = worker.issue(Duration::from_secs(600));
        worker.put(&id, data(1), now() + 600).expect("a record that is stored");
        let path = file(&path, "data.mdb");
        let bytes = fs::read(&path).expect("the data file");
        let data_file = fs::OpenOptions::new().write(true).open(&path).expect("the data file");
        // The key ends in what the id ends in, and the record follows it.
        let places: Vec<usize> = (0..bytes.len() - 20).filter(|at| bytes[*at..*at + 20] == id[12..]).collect();
        assert!(!places.is_empty(), "the record is not where it is looked for");
        let begin = worker.stat("generation");
        for n in 0..RECORD {
            for place in &places {
                let at = place + 20 + n;
                data_file.write_all_at(&[bytes[at] ^ 1 << (n % 8)], at as u64).expect("a byte");
            }
            assert!(!worker.get(&id, data(1)), "{options}: a record is returned whose byte {n} is not what was stored");
            for place in &places {
                data_file
                    .write_all_at(&bytes[place + 20 + n..place + 21 + n], (place + 20 + n) as u64)
                    .expect("a byte");
            }
            assert!(worker.get(&id, data(1)), "{options}: a record that is whole again is not found");
        }
        let mut random = Random(17);
        for n in 0..MUTATIONS {
            let len = 1 + random.below(16) as usize;
            let from = random.below((RECORD - len + 1) as u64) as usize;
            let noise: Vec<u8> = (0..len).map(|_| random.below(255) as u8 + 1).collect();
            for place in &places {
                let at = place + 20 + from;
                let mutated: Vec<u8> =
                    bytes[at..at + len].iter().zip(&noise).map(|(byte, noise)| byte ^ noise).collect();
                data_file.write_all_at(&mutated, at as u64).expect("some bytes");
            }
            assert!(!worker.get(&id, data(1)), "{options}: mutation {n}, {len} bytes from {from}, is returned");
            for place in &places {
                let at = place + 20 + from;
                data_file.write_all_at(&bytes[at..at + len], at as u64).expect("some bytes");
            }
        }
        assert!(worker.get(&id, data(1)), "{options}: a record that is whole again is not found");
        assert_eq!(worker.stat("generation"), begin, "one damaged record costs all sessions");
        worker.finish();
    }
}

/// What is done about it at the opening comes before a server can say where messages go.
#[test]
fn the_log_tells_that_a_damaged_control_file_was_replaced() {
    let scratch = Scratch::new("heard");
    let path = scratch.join("store");
    Worker::open(&path, OPTIONS).finish();
    let listen = |cache: &sesscache::Cache| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let messages = Arc::clone(&heard);
        cache.set_log(Some(Box::new(move |level, message| {
            messages.lock().expect("the messages").push((level, message.to_string_lossy().into_owned()));
        })));
        heard
    };
    let cache = support::open(&path, OPTIONS);
    let heard = listen(&cache);
    assert_eq!(*heard.lock().expect("the messages"), [], "a whole store is complained of");
    drop(cache);
    fs::write(path.join("control"), "damaged").expect("a control file");
    let cache = support::open(&path, OPTIONS);
    for (time, messages) in [("first", 1), ("second", 0)] {
        let heard = listen(&cache);
        let heard = heard.lock().expect("the messages");
        assert_eq!(heard.len(), messages, "the {time} function hears {heard:?}");
        assert!(heard.iter().all(|(level, text)| *level == 4 && text.contains("control file")), "{heard:?}");
    }
    // Another handle finds it damaged while a function is set.
    let heard = listen(&cache);
    fs::write(path.join("control"), "damaged").expect("a control file");
    std::thread::sleep(Duration::from_millis(1_050));
    let other = support::open(&path, OPTIONS);
    assert_eq!(heard.lock().expect("the messages").len(), 1, "a second handle replaces a control file in silence");
    drop(other);
}
