//! Every file of a store is damaged in every way under three processes that put and get. What is in LMDB's own pages can end
//! them, since LMDB believes its pages; what cannot be is a wrong session, or a process that hangs.
//!
//! `SESSCACHE_LONG=1 cargo test --test faults -- --nocapture damaged_while_open` tries more and shows a table.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::damage::{Kind, KINDS, PAGE};
use support::{now, open, Data, Random, Scratch, Worker};

/// How long the three go on in a damaged store.
const USE: Duration = Duration::from_millis(150);
/// A process that has not ended so long after it was told to hangs.
const HANG: Duration = Duration::from_secs(20);
const OPTIONS: [&str; 2] = ["capacity=1MiB deadline=50ms", "capacity=1MiB deadline=50ms guard=on"];
const SEEDS: u64 = 600;
const FILES: [&str; 5] = ["data.mdb", "lock.mdb", "control", "gate", "key"];

/// What each of them puts and expects under the id of a seed.
fn record(seed: u64) -> (Vec<u8>, Data) {
    (Random(seed).id(32), Data { len: [224, 100, 400, 6_000][seed as usize % 4], seed })
}

support::roles!(work: "load on damage");

fn work(role: &str, arguments: &[String]) {
    assert_eq!(role, "load on damage");
    let cache = open(Path::new(&arguments[0]), &arguments[1]);
    let mut random = Random(arguments[2].parse().expect("a number"));
    for seed in 0..SEEDS / 3 {
        let (id, data) = record(seed);
        let _ = cache.put(&id, &data.bytes(), now() + 600);
    }
    println!("begins");
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        end.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut wrong = 0;
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        let (id, data) = record(random.below(SEEDS));
        let mut look = |bytes: &[u8]| wrong += u64::from(!data.is(bytes));
        match random.below(8) {
            0..=2 => drop(cache.put(&id, &data.bytes(), now() + 600)),
            3 => drop(cache.take(&id, &mut look)),
            4 => drop(cache.remove(&id)),
            _ => drop(cache.get(&id, &mut look)),
        }
    }
    println!("{wrong}");
}

fn file(store: &Path, name: &str) -> PathBuf {
    if ["control", "key"].contains(&name) {
        return store.join(name);
    }
    let generation = support::damage::generation(store);
    generation.join(name)
}

/// Damages the pages of a file where they lie, under those who have mapped it.
fn damage_pages(path: &Path, kind: Kind, random: &mut Random) {
    let before = fs::read(path).expect("a file");
    let mut bytes = before.clone();
    // Two pages at least, as the kinds want them; what lies beyond the end is not written.
    bytes.resize(before.len().next_multiple_of(PAGE).max(2 * PAGE), 0);
    let all = (bytes.len() / PAGE) as u64;
    let (mut live, mut lists) = ((0..all).collect::<Vec<_>>(), 2);
    if path.ends_with("data.mdb") {
        // The pages in use, as far as they stand still.
        let (_, seen) = support::damage::look(path, before.len() as u64);
        lists = seen.len().min(2);
        live = if seen.is_empty() { vec![2] } else { seen };
        live.retain(|page| *page < all);
    }
    support::damage::damage(&mut bytes, kind, random, &live, lists);
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    if kind == Kind::Truncated {
        return file.set_len((bytes.len() as u64).min(before.len() as u64)).expect("a shorter file");
    }
    bytes.resize(before.len(), 0);
    for (number, (new, old)) in bytes.chunks(PAGE).zip(before.chunks(PAGE)).enumerate() {
        if new != old {
            file.write_all_at(new, (number * PAGE) as u64).expect("a page");
        }
    }
}

/// A way to damage a file while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pages(Kind),
    /// All of it, or written over with what it was when the store was new.
    AllZeroed,
    Older,
    /// Another file under the name: an older copy, or none.
    Replaced,
    Deleted,
}

fn ways() -> Vec<Way> {
    let others = [Way::AllZeroed, Way::Older, Way::Replaced, Way::Deleted];
    KINDS.into_iter().map(Way::Pages).chain(others).collect()
}

fn damage_file(path: &Path, way: Way, older: &[u8], random: &mut Random) {
    let write = |bytes: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
        file.write_all_at(bytes, 0).expect("a file that is written over");
    };
    match way {
        Way::Pages(kind) => damage_pages(path, kind, random),
        Way::AllZeroed => write(&vec![0; fs::metadata(path).expect("a file").len() as usize]),
        Way::Older => write(older),
        Way::Replaced => {
            let copy = path.with_extension("copy");
            fs::write(&copy, older).expect("a copy");
            support::set_mode(&copy, 0o600);
            fs::rename(&copy, path).expect("a copy in its place");
        }
        Way::Deleted => fs::remove_file(path).expect("a file that goes"),
    }
}

/// What came of one damage.
#[derive(Default)]
struct Tally {
    tried: usize,
    /// Ends of processes, three for each damage at most.
    deaths: usize,
    hangs: usize,
    /// Damages after which no new process could use the store.
    lost: usize,
}

/// Waits for a process that was told to end: how many wrong records it was given, or how it died; `None` when it hangs.
fn end(mut worker: Worker, until: Instant) -> Option<Result<u64, i32>> {
    worker.say_end();
    loop {
        if let Some(status) = worker.ended() {
            return Some(match status.signal() {
                Some(signal) => Err(signal),
                None => {
                    assert!(status.success(), "a process fails: {status}");
                    Ok(worker.hear().parse().expect("a number"))
                }
            });
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn try_one(name: &str, way: Way, options: &str, seed: u64, tally: &mut Tally) {
    let scratch = Scratch::new("open-damage");
    let path = scratch.join("store");
    let mut first = Worker::open(&path, options);
    first.put(b"the first", Data { len: 9, seed }, now() + 600).expect("a record that is stored");
    let older = fs::read(file(&path, name)).expect("a file");
    first.finish();
    let workers: Vec<Worker> = (0..3)
        .map(|n| {
            let mut worker =
                Worker::start("load on damage", &[path.to_str().expect("UTF-8"), options, &format!("{}", seed + n)]);
            assert_eq!(worker.hear(), "begins");
            worker
        })
        .collect();
    damage_file(&file(&path, name), way, &older, &mut Random(seed));
    std::thread::sleep(USE);
    tally.tried += 1;
    let until = Instant::now() + support::patience(HANG);
    for worker in workers {
        match end(worker, until) {
            Some(Ok(wrong)) => assert_eq!(wrong, 0, "{name}, {way:?}, seed {seed}: {wrong} wrong records are returned"),
            Some(Err(signal)) => {
                println!("{name}, {way:?}, {options}, seed {seed}: signal {signal}");
                tally.deaths += 1;
            }
            None => {
                println!("{name}, {way:?}, {options}, seed {seed}: hangs");
                tally.hangs += 1;
            }
        }
    }
    // Those who come after them: a supervisor starts a few.
    let used = (0..8).any(|n| {
        let mut next = Worker::start("serve", &[]);
        next.say(&format!("open {} {options}", path.display()));
        let opened = next.try_hear(HANG).is_some_and(|answer| answer.starts_with("ok"));
        let data = Data { len: 200, seed: n };
        if opened {
            next.say(&support::put_line(b"afterwards", data, now() + 600));
        }
        let put = opened && next.try_hear(HANG).is_some_and(|answer| answer.starts_with("ok"));
        put && next.get(b"afterwards", data) || {
            std::thread::sleep(Duration::from_millis(200));
            false
        }
    });
    if !used {
        println!("{name}, {way:?}, {options}, seed {seed}: not used again");
        // A key that is cut short is not replaced: whoever put it there may have another.
        tally.lost += usize::from(name != "key" || way != Way::Pages(Kind::Truncated));
    }
}

#[test]
fn a_file_damaged_under_three_processes_gives_no_wrong_session_and_hangs_none() {
    let mut table: BTreeMap<&str, Tally> = BTreeMap::new();
    std::thread::scope(|scope| {
        let parts = FILES.map(|name| {
            scope.spawn(move || {
                let mut tally = Tally::default();
                for (n, way) in ways().into_iter().enumerate() {
                    for seed in 0..support::tries(1, 20) {
                        let options = OPTIONS[(n as u64 + seed) as usize % 2];
                        try_one(name, way, options, 1_000 * n as u64 + seed, &mut tally);
                    }
                }
                (name, tally)
            })
        });
        table.extend(parts.map(|part| part.join().expect("a part of the test")));
    });
    println!("{:9} {:>6} {:>7} {:>6} {:>15}", "file", "tried", "deaths", "hangs", "not used again");
    for (name, tally) in &table {
        println!("{name:9} {:6} {:7} {:6} {:15}", tally.tried, tally.deaths, tally.hangs, tally.lost);
    }
    for (name, tally) in &table {
        assert_eq!(tally.hangs, 0, "{name}: processes hang");
        assert!(tally.lost == 0, "{name}: after {} damages nobody can use the store", tally.lost);
    }
}
