//! A store that is whole is never taken for a damaged one, which would cost its sessions: at a restart, when a file ends in
//! free pages, after a writer was killed, or when a whole server starts at once.

use std::path::Path;
use std::time::Duration;

use support::damage::RECIPES;
use support::{Data, Random, Scratch, Worker};

support::roles!(work: "churn", "storm");

fn work(role: &str, arguments: &[String]) {
    match role {
        "churn" => churn(Path::new(&arguments[0]), arguments[1].parse().expect("a seed")),
        "storm" => storm(Path::new(&arguments[0]), arguments[1].parse().expect("a time")),
        other => panic!("no such role: {other}"),
    }
}

/// Writes until it is killed.
fn churn(path: &Path, seed: u64) {
    let cache = support::open(path, "deadline=1s");
    let mut random = Random(seed);
    let mut ids = Vec::new();
    println!("ready");
    loop {
        let id = cache.issue_id(Duration::from_secs(3_000)).expect("an id");
        let len = [224, 224, 1_500, 6_000, 30_000][random.below(5) as usize];
        let _ = cache.put(&id, &Data { len, seed: 1 }.bytes(), support::now() + 3_000);
        ids.push(id);
        if random.below(2) == 0 {
            let at = random.below(ids.len() as u64) as usize;
            let _ = cache.take(&ids.swap_remove(at), |_| ());
        }
    }
}

/// Opens at an instant that the others were told as well, and writes at once.
fn storm(path: &Path, at: u64) {
    let id = Random(at).id(32);
    while support::monotonic() < at {
        std::hint::spin_loop();
    }
    let cache = support::open(path, "deadline=1s");
    for n in 0..200 {
        let data = Data { len: 3_000, seed: n };
        let id = cache.issue_id(Duration::from_secs(9_000)).map_or(id.clone(), |id| id.to_vec());
        cache.put(&id, &data.bytes(), support::now() + 9_000).expect("a put");
    }
    println!("{}", support::row(&cache.stats().expect("statistics"), "generation"));
}

#[test]
fn a_store_of_any_kind_is_called_whole() {
    let scratch = Scratch::new("whole");
    let look_at = |recipe: &support::damage::Recipe| {
        let path = scratch.join(recipe.name);
        let mut looks = 0;
        support::damage::make(recipe, 1, &path, |when| {
            if when == "empty" {
                return;
            }
            looks += 1;
            let (found, _) =
                support::damage::look(&support::damage::generation(&path).join("data.mdb"), recipe.capacity());
            let name = recipe.name;
            let found = found.unwrap_or_else(|e| panic!("a store '{name}' that is {when} is called damaged: {e}"));
            assert!(found.entries > 1, "a store '{name}' that is {when} has nothing in it: {found:?}");
            assert_eq!(found.lost, 0, "a store '{name}' that is {when} has lost pages: {found:?}");
        });
        assert!(looks > 20, "{looks} looks are too few");
    };
    std::thread::scope(|scope| {
        for recipe in RECIPES {
            let look_at = &look_at;
            scope.spawn(move || look_at(recipe));
        }
    });
}

#[test]
fn a_store_whose_writers_were_killed_is_called_whole() {
    for options in ["capacity=2MiB", "capacity=2MiB guard=on"] {
        let scratch = Scratch::new("killed");
        let path = scratch.join("store");
        let mut watcher = Worker::open(&path, options);
        let generation = watcher.stat("generation");
        let mut random = Random(7);
        for round in 0..30 {
            let mut writers: Vec<Worker> = (0..2)
                .map(|n| Worker::start("churn", &[path.to_str().expect("UTF-8"), &format!("{}", round * 2 + n)]))
                .collect();
            writers.iter_mut().for_each(|writer| assert_eq!(writer.hear(), "ready"));
            std::thread::sleep(Duration::from_micros(random.below(20_000)));
            drop(writers);
            let (found, _) = support::damage::look(&support::damage::generation(&path).join("data.mdb"), 2 << 20);
            let found =
                found.unwrap_or_else(|e| panic!("{options}: killed writers leave a store that is called damaged: {e}"));
            assert_eq!(found.lost, 0, "{options}: killed writers leave pages lost: {found:?}");
            // A new one is the first to open it, and looks.
            watcher.finish();
            watcher = Worker::open(&path, options);
            assert_eq!(watcher.stat("generation"), generation, "{options}: killed writers cost all sessions");
        }
    }
}

/// Pages that were new in a transaction and free again at its end are counted and not written.
#[test]
fn a_guarded_store_that_ends_in_free_pages_is_called_whole() {
    let scratch = Scratch::new("short");
    let mut short = 0;
    for n in (150..250).step_by(7) {
        let path = scratch.join(&format!("store-{n}"));
        let mut worker = Worker::open(&path, "guard=on capacity=8MiB deadline=1s");
        let expires = support::now() + 1;
        for seed in 0..n {
            let id = worker.issue(Duration::from_millis(300));
            assert_eq!(worker.put(&id, Data { len: 1_500, seed }, expires), Ok(()));
        }
        let kept = (worker.issue(Duration::from_secs(900)), Data { len: 200, seed: n });
        worker.put(&kept.0, kept.1, support::now() + 900).expect("a put");
        std::thread::sleep(Duration::from_millis(400));
        worker.ask("sweep 1000").expect("a sweep");
        let generation = worker.stat("generation");
        worker.finish();
        let data = support::damage::generation(&path).join("data.mdb");
        let (found, _) = support::damage::look(&data, 8 << 20);
        let found = found.unwrap_or_else(|e| panic!("a guarded store is called damaged: {e}"));
        let pages = std::fs::metadata(&data).expect("a data file").len() / support::damage::PAGE as u64;
        short += usize::from(pages <= found.last_page);
        let mut worker = Worker::open(&path, "guard=on");
        assert!(worker.get(&kept.0, kept.1), "a restart costs the sessions of a guarded store of {pages} pages");
        assert_eq!(worker.stat("generation"), generation, "a restart costs all sessions of a guarded store");
    }
    assert!(short > 0, "no file ends early, so this test shows nothing");
}

/// Each of them is the first, as far as it can see, and the others write while it looks.
#[test]
fn a_server_that_starts_all_its_workers_at_once_keeps_its_sessions() {
    let scratch = Scratch::new("start");
    let path = scratch.join("store");
    let mut random = Random(3);
    let mut worker = Worker::open(&path, "capacity=16MiB deadline=1s");
    for seed in 0..4_000 {
        let id = worker.issue(Duration::from_secs(9_000));
        worker.put(&id, Data { len: 3_000, seed }, support::now() + 9_000).expect("a put");
    }
    let generation = worker.stat("generation");
    worker.finish();
    for round in 0..20 {
        // Started programs first, then all at an instant, one a little later than the other.
        let start = support::monotonic() + 100_000_000;
        let mut delay = |n: u64| (start + n * random.below(3_000_000)).to_string();
        let late: Vec<String> = (0..4).map(&mut delay).collect();
        let path = path.to_str().expect("UTF-8");
        let mut workers: Vec<Worker> = late.iter().map(|at| Worker::start("storm", &[path, at])).collect();
        for worker in &mut workers {
            let now: u64 = worker.hear().parse().expect("a number");
            assert_eq!(
                now, generation,
                "round {round}: workers that start at once take a whole store for a damaged one"
            );
        }
        workers.into_iter().for_each(Worker::finish);
    }
}
