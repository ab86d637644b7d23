//! Workers are killed with SIGKILL wherever they happen to be: inside a write, a lookup, the opening of the store. Nobody may
//! pay for it but the killed one: no page is damaged, no lock stays behind, and what a put had acknowledged is there.
//!
//! `SESSCACHE_LONG=1 cargo test --test faults -- --nocapture killed_workers` kills 2,000 of them for each way of writing.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sesscache::{Cache, Status};
use support::{
    now, open, resume_client, row, signal, tries, wait_until, Data, Random, Scratch, Server, Traffic, Worker, BOTH,
};

/// After so many steps a worker slows down: what is put must not fill the store while a dead worker's records are looked up.
const HURRY: u64 = 3_000;
/// Every so many steps a worker removes what it has put four steps before.
const REMOVES: u64 = 8;

support::roles!(work: "load until killed");

fn work(role: &str, arguments: &[String]) {
    assert_eq!(role, "load until killed");
    load(Path::new(&arguments[0]), &arguments[1], Path::new(&arguments[2]));
}

/// The record of one step. Some need several pages.
fn record(series: u64, step: u64) -> (Vec<u8>, Data) {
    let seed = series << 32 | step;
    let len = if step % 32 == 5 { 9_000 } else { 180 + (seed % 100) as usize };
    (Random(seed).id(32), Data { len, seed })
}

/// Puts, looks up and removes until it is killed. Its diary gets a byte for each step, after the step has returned.
fn load(path: &Path, options: &str, diary: &Path) {
    let series: u64 = diary.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
    let mut diary = fs::File::create(diary).expect("a diary");
    let cache = open(path, options);
    for step in 0.. {
        let take_step = || match step % REMOVES {
            at if at == REMOVES - 1 => cache.remove(&record(series, step - 4).0),
            _ => {
                let (id, data) = record(series, step);
                cache.put(&id, &data.bytes(), now() + 3_600)
            }
        };
        let mut done = take_step();
        // A reader that is off the processor for a while, dead or alive, pins what is freed meanwhile. No server writes as fast.
        for _ in 0..2_000 {
            if !done.as_ref().is_err_and(|error| error.status == Status::Full) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
            done = take_step();
        }
        done.unwrap_or_else(|error| panic!("step {step} of a worker fails because others were killed: {error}"));
        diary.write_all(b".").expect("a diary");
        let (id, data) = record(series, step - step % REMOVES);
        assert!(cache.get(&id, |bytes| data.is(bytes)).expect("a record of its own"), "another record is returned");
        if step > HURRY {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A worker under load, and what it says it has done.
struct Loaded {
    worker: Worker,
    series: u64,
    diary: PathBuf,
}

impl Loaded {
    fn start(scratch: &Scratch, path: &Path, options: &str, series: u64) -> Loaded {
        let diary = scratch.path().join(series.to_string());
        let worker = Worker::start("load until killed", &[support::text(path), options, support::text(&diary)]);
        Loaded { worker, series, diary }
    }

    fn steps(&self) -> u64 {
        fs::metadata(&self.diary).map_or(0, |meta| meta.len())
    }

    /// Kills it and takes out of the store what it has put; how many records that were.
    fn kill(self, cache: &Cache) -> u64 {
        let (steps, series) = (self.steps(), self.series);
        let status = self.worker.kill();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "worker {series} ended of itself: {status}");
        // It may have gone on until it was dead.
        let returned = fs::metadata(&self.diary).map_or(steps, |meta| meta.len());
        let _ = fs::remove_file(&self.diary);
        let mut found = 0;
        for step in (0..returned).filter(|step| step % REMOVES != REMOVES - 1) {
            let (id, data) = record(series, step);
            let at = step / REMOVES * REMOVES + REMOVES - 1;
            let removed = step == at - 4;
            match cache.take(&id, |bytes| data.is(bytes)) {
                Ok(same) => {
                    assert!(same, "worker {series}, step {step}: another record is returned");
                    assert!(!removed || at >= returned, "worker {series}, step {step}: what was removed is back");
                    found += 1;
                }
                Err(error) => {
                    assert_eq!(error.status, Status::NotFound, "{error}");
                    // The step after the last may have been done without being noted.
                    let lost = !(removed && at <= returned);
                    assert!(!lost, "worker {series}, step {step} of {returned}: a record whose put had returned is lost; {} evicted", row(&cache.stats().expect("statistics"), "evicted"));
                }
            }
        }
        found
    }
}

fn kill_at_random(options: &'static str, kills: u64) {
    let scratch = Scratch::new("killed");
    let path = scratch.path().join("store");
    let options = format!("capacity=256MiB deadline=10s {options}");
    let mut cache = open(&path, &options);
    let kept: Vec<_> = (0..200).map(|step| record(u64::from(u32::MAX), step)).collect();
    for (id, data) in &kept {
        cache.put(id, &data.bytes(), now() + 3_600).expect("a record that is stored");
    }
    let generation = |cache: &Cache| row(&cache.stats().expect("statistics"), "generation");
    let begin = generation(&cache);
    let mut random = Random(kills);
    let mut loaded: Vec<Loaded> = (0..3).map(|n| Loaded::start(&scratch, &path, &options, n)).collect();
    let mut found = 0;
    for n in 0..kills {
        let at = random.below(3) as usize;
        if n % 8 > 0 {
            // Somewhere in its work. Every eighth dies wherever it is, often while it opens the store.
            let moves = wait_until(Duration::from_secs(30), || loaded[at].steps() > 0);
            assert!(moves, "after {n} kills a worker does not get to its first step: something is stuck");
        }
        thread::sleep(Duration::from_micros(random.below(3_000)));
        let next = Loaded::start(&scratch, &path, &options, 3 + n);
        found += std::mem::replace(&mut loaded[at], next).kill(&cache);
        let (id, data) = &kept[n as usize % kept.len()];
        let same = cache.get(id, |bytes| data.is(bytes));
        assert!(same.is_ok_and(|same| same), "kill {n}: a session is gone because a worker was killed");
        if n % 20 == 0 {
            let before: Vec<u64> = loaded.iter().map(Loaded::steps).collect();
            let all = || loaded.iter().zip(&before).all(|(loaded, before)| loaded.steps() > *before);
            assert!(wait_until(Duration::from_secs(30), all), "after {n} kills somebody is stuck");
        }
        if n % 100 == 99 || n + 1 == kills {
            // Everybody dies, and whoever opens the store next reads the whole file.
            found += loaded.drain(..).map(|loaded| loaded.kill(&cache)).sum::<u64>();
            drop(cache);
            cache = open(&path, &options);
            assert_eq!(generation(&cache), begin, "after {n} kills a sound store is given up: a page is damaged");
            loaded.extend((0..3).map(|more| Loaded::start(&scratch, &path, &options, 1_000_000 + 3 * n + more)));
        }
    }
    found += loaded.drain(..).map(|loaded| loaded.kill(&cache)).sum::<u64>();
    for (id, data) in &kept {
        assert!(cache.get(id, |bytes| data.is(bytes)).is_ok_and(|same| same), "a session is gone");
    }
    assert_eq!(row(&cache.stats().expect("statistics"), "evicted"), 0, "this store is too small to show a loss");
    drop(cache);
    let check = support::program::json(&["--json", "check", support::text(&path)]);
    assert_eq!(support::program::number(&check, "damaged"), 0, "{check}");
    assert!(check["damage"].is_null(), "{check}");
    println!("{options}: {kills} kills, {found} records found of those whose put had returned, none lost");
    assert!(found > kills, "the workers are killed before they have done anything, so this shows nothing");
}

#[test]
fn sessions_survive_kill_9() {
    kill_at_random("", tries(60, 2_000));
}

#[test]
fn sessions_in_a_guarded_store_survive_kill_9() {
    kill_at_random("guard=on", tries(60, 2_000));
}

/// The supervisor of prefork_server starts the missing workers once a second, so they are many.
#[test]
fn sessions_of_clients_survive_the_kill_9_of_workers_under_load() {
    let scratch = Scratch::new("tls-killed");
    let store = scratch.text("store");
    let arguments = ["-s", &store, "-w", "16", "-o", "deadline=10s"];
    let server = Server::start("prefork_server", &arguments);
    let mut random = Random(7);
    let mut kills = 0;
    for round in 0..tries(2, 40) {
        for tls in BOTH {
            let sessions: Vec<String> = (0..3).map(|n| scratch.text(&format!("session-{n}"))).collect();
            for session in &sessions {
                resume_client(server.port, 1, tls, &["-o", session]);
            }
            let traffic: Vec<Traffic> = BOTH.iter().map(|tls| Traffic::start(server.port, *tls)).collect();
            thread::sleep(Duration::from_millis(200));
            let killed = server.workers();
            for pid in killed.iter().take(12) {
                thread::sleep(Duration::from_micros(random.below(20_000)));
                kills += u64::from(signal(*pid, libc::SIGKILL));
            }
            drop(traffic);
            for (n, session) in sessions.iter().enumerate() {
                let tally = resume_client(server.port, 1, tls, &["-i", session]);
                assert_eq!(tally.resumed, 1, "round {round}, {tls:?}, session {n}: lost with workers that were killed");
            }
            let replaced = wait_until(Duration::from_secs(20), || server.workers().len() == 16);
            assert!(replaced, "killed workers are not replaced: {:?}", server.workers());
        }
    }
    assert!(kills >= 40, "only {kills} workers were killed");
    server.stop();
    let cache = open(Path::new(&store), "deadline=10s");
    let begun = fs::read_dir(&store).expect("the store").flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(begun, 1, "the store was begun anew");
    drop(cache);
    let check = support::program::json(&["--json", "check", &store]);
    assert_eq!(support::program::number(&check, "damaged"), 0, "{check}");
    println!("{kills} TLS workers killed, no session lost");
}
