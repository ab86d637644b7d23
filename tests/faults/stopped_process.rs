//! A process is stopped with SIGSTOP inside a write or inside a lookup: a debugger, a frozen container, a swapping machine.
//! The others wait for him once, not longer than the deadline, and later go on without him; and he finds his way back.

use std::path::Path;
use std::time::{Duration, Instant};

use support::{now, open, resume_client, Data, Random, Scratch, Server, Worker, BOTH};

/// What a busy machine adds to every wait.
const SCHEDULING: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_millis(300);
const OPTIONS: &str = "capacity=4MiB deadline=300ms";

/// A long record: a put or a lookup of one takes long enough to be met inside.
const LONG: Data = Data { len: 60_000, seed: 9 };

support::roles!(work: "puts", "gets");

fn work(role: &str, arguments: &[String]) {
    match role {
        // Does nothing but puts, or lookups, of one long record; ends when it is told to, and says how often it was served.
        "puts" | "gets" => {
            let cache = open(Path::new(&arguments[0]), OPTIONS);
            let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let end = std::sync::Arc::clone(&ended);
            std::thread::spawn(move || {
                let _ = std::io::stdin().read_line(&mut String::new());
                end.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            println!("begins");
            let (bytes, mut served) = (LONG.bytes(), 0_u64);
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                served += u64::from(match role {
                    "puts" => cache.put(b"stopped", &bytes, now() + 600).is_ok(),
                    // Compared in one step: making the bytes anew would take a hundred times as long as a lookup.
                    _ => cache.get(b"long", |found| assert!(found == bytes, "another record is returned")).is_ok(),
                });
            }
            let last = cache.put(b"afterwards", &bytes[..10], now() + 600);
            println!("{served} {}", last.is_ok());
        }
        other => panic!("no such role: {other}"),
    }
}

/// Puts a record and says whether that was done, and in time.
fn put(worker: &mut Worker, seed: u64) -> bool {
    let begin = Instant::now();
    let done = worker.put(&Random(seed).id(32), Data { len: 200, seed }, now() + 600);
    let took = begin.elapsed();
    assert!(took < DEADLINE + support::patience(SCHEDULING), "a put waits {took:?} for a process that is stopped");
    if let Err(refused) = &done {
        assert_eq!(refused.status, "Busy", "{refused:?}");
    }
    done.is_ok()
}

/// A worker that is stopped while it holds the gate, and one that found that out.
fn stopped_in_a_write(path: &Path) -> (Worker, Worker) {
    let mut stopped = Worker::start("puts", &[support::text(path)]);
    assert_eq!(stopped.hear(), "begins");
    for n in 0..400 {
        std::thread::sleep(Duration::from_micros(500 + n * 37 % 1_000));
        stopped.signal(libc::SIGSTOP);
        // A new process is not impatient yet: what it waits for in vain is held by somebody who does not move.
        let mut other = Worker::open(path, OPTIONS);
        if !put(&mut other, 1_000 + n) {
            return (stopped, other);
        }
        stopped.signal(libc::SIGCONT);
        other.finish();
    }
    panic!("a process that does nothing but write is never met inside a write");
}

#[test]
fn the_store_opens_again_after_a_writer_was_stopped_and_killed() {
    let scratch = Scratch::new("stopped-killed");
    let path = scratch.join("store");
    let mut before = Worker::open(&path, OPTIONS);
    let begin = before.stat("generation");
    let (stopped, mut other) = stopped_in_a_write(&path);
    drop(stopped);
    // Whoever waited in vain only tries for a while.
    assert!((0..20).any(|seed| put(&mut other, seed)), "the store stays shut after its writer was killed");
    assert!(put(&mut before, 77), "the store stays shut for others");
    let kept = before.stat("generation");
    assert!(kept <= begin + 1, "{begin} {kept}: a writer that died costs more than one generation");
}

#[test]
fn a_writer_that_is_stopped_costs_one_deadline_and_no_session() {
    let scratch = Scratch::new("stopped");
    let path = scratch.join("store");
    let server = Server::start("prefork_server", &["-s", support::text(&path), "-o", OPTIONS]);
    let sessions: Vec<String> =
        BOTH.iter().map(|tls| support::text(&scratch.join(&format!("{tls:?}"))).to_owned()).collect();
    for (tls, session) in BOTH.iter().zip(&sessions) {
        resume_client(server.port, 1, *tls, &["-o", session]);
    }
    let mut other = Worker::open(&path, OPTIONS);
    let begin = other.stat("generation");
    let (mut stopped, _) = stopped_in_a_write(&path);
    let mut longest = Duration::ZERO;
    for n in 0..12 {
        for tls in BOTH {
            let since = Instant::now();
            resume_client(server.port, 1, tls, &[]);
            longest = longest.max(since.elapsed());
            assert!(
                since.elapsed() < 4 * DEADLINE + support::patience(SCHEDULING),
                "{tls:?}: a client waits {:?}",
                since.elapsed()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
        put(&mut other, n);
    }
    println!("a writer is stopped: the longest of 24 clients, with its start, took {longest:?}");
    assert!((0..40).any(|seed| put(&mut other, 100 + seed)), "nobody leaves a writer behind that stays stopped");
    assert!(other.stat("generation") > begin, "the store of the stopped writer is still in use");
    for (tls, session) in BOTH.iter().zip(&sessions) {
        let tally = resume_client(server.port, 1, *tls, &["-i", session]);
        assert_eq!(tally.resumed, 1, "{tls:?}: a session of before is lost because a writer was stopped");
    }
    stopped.signal(libc::SIGCONT);
    stopped.say("end");
    let rest = stopped.hear_rest();
    assert!(rest.last().is_some_and(|last| last.ends_with("true")), "who was stopped cannot store again: {rest:?}");
    let found = other.get(b"afterwards", Data { len: 10, seed: LONG.seed });
    assert!(found, "who was stopped stores where nobody looks");
}

#[test]
fn a_store_that_a_stopped_reader_keeps_full_takes_sessions_again() {
    let scratch = Scratch::new("stopped-reader");
    let path = scratch.join("store");
    let mut other = Worker::open(&path, OPTIONS);
    other.put(b"long", LONG, now() + 600).expect("a record that is stored");
    other.put(b"old", Data { len: 99, seed: 3 }, now() + 6_000).expect("a record that is stored");
    let begin = other.stat("generation");
    let mut stopped = Worker::start("gets", &[support::text(&path)]);
    assert_eq!(stopped.hear(), "begins");
    let inspect = || sesscache::inspect::Inspect::open(&path, None).expect("a store to look at");
    let mut met = false;
    for n in 0..400 {
        std::thread::sleep(Duration::from_micros(500 + n * 37 % 1_000));
        stopped.signal(libc::SIGSTOP);
        let processes = inspect().processes().expect("the processes that read");
        met = processes.iter().flatten().any(|process| process.pid == stopped.pid() && process.lag.is_some());
        if met {
            break;
        }
        stopped.signal(libc::SIGCONT);
    }
    assert!(met, "a process that does nothing but look up is never met inside a lookup");
    // Every put frees pages that the snapshot pins, until there are no others.
    let since = Instant::now();
    let (mut failed, mut seed, mut longest) = (0, 0, Duration::ZERO);
    let mut full_since = None;
    while other.stat("generation") == begin {
        assert!(
            since.elapsed() < support::patience(Duration::from_secs(60)),
            "a reader that is stopped fills the store for ever"
        );
        let put = Instant::now();
        if other.put(&Random(seed).id(32), Data { len: 3_000, seed }, now() + 600).is_err() {
            failed += 1;
            full_since.get_or_insert_with(Instant::now);
            std::thread::sleep(Duration::from_millis(20));
        }
        longest = longest.max(put.elapsed());
        seed += 1;
    }
    let full = full_since.map_or(Duration::ZERO, |full: Instant| full.elapsed());
    println!(
        "a reader is stopped: after {seed} puts full for {full:?}, {failed} puts skipped, the longest took {longest:?}"
    );
    assert!(failed > 0, "the reader pins nothing, so this shows nothing");
    assert!(full < Duration::from_secs(4) + support::patience(SCHEDULING), "the store was full for {full:?}");
    other.put(b"new", Data { len: 99, seed: 4 }, now() + 600).expect("a record that is stored in the new generation");
    assert!(other.get(b"old", Data { len: 99, seed: 3 }), "the sessions of the old generation are lost");
    stopped.signal(libc::SIGCONT);
    stopped.say("end");
    let rest = stopped.hear_rest();
    assert!(rest.last().is_some_and(|last| last.ends_with("true")), "who was stopped cannot go on: {rest:?}");
    assert!(other.get(b"afterwards", Data { len: 10, seed: LONG.seed }), "who was stopped stores where nobody looks");
}
