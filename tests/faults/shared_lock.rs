//! What a process does for itself - a log function that does not return, a file that has to grow - keeps the puts of no other
//! process waiting: the write lock is theirs as well.

use std::path::Path;
use std::time::{Duration, Instant};

use support::{now, open, preload, text, Data, Random, Scratch, Worker};

support::roles!(work: "listens", "fills", "times");

const OPTIONS: &str = "capacity=16MiB disk=on";
const RECORD: Data = Data { len: 3_000, seed: 1 };

fn put(cache: &sesscache::Cache, seed: u64) -> bool {
    cache.put(&Random(seed).id(32), &RECORD.bytes(), now() + 600).is_ok()
}

/// What this thread has cost so far: on a busy machine everything takes longer.
fn cpu_micros() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes a struct.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

fn work(role: &str, arguments: &[String]) {
    match role {
        // May not let the file grow, is told so, and listens for ever.
        "listens" => {
            let cache = open(Path::new(&arguments[0]), OPTIONS);
            assert!(put(&cache, 0), "nothing can be stored");
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: setrlimit reads a struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
            cache.set_log(Some(Box::new(|_, line| {
                println!("{}", line.to_string_lossy());
                loop {
                    std::thread::park();
                }
            })));
            let stored = (1..10_000).filter(|seed| put(&cache, *seed)).count();
            println!("never blocked: {stored} records");
        }
        // Puts until the file has grown by so many MiB; says how many puts were refused.
        "fills" => {
            let cache = open(Path::new(&arguments[0]), &arguments[1]);
            let mib: u64 = arguments[2].parse().expect("a number");
            println!("begins");
            let slowly = |seed: &u64| {
                std::thread::sleep(Duration::from_millis(1));
                !put(&cache, *seed)
            };
            let refused = (0..(mib << 20) / RECORD.len as u64).filter(slowly).count();
            println!("{refused}");
        }
        // Fills a new store; says what the longest put cost, in microseconds.
        "times" => {
            let cache = open(Path::new(&arguments[0]), &arguments[1]);
            let bytes = Data { len: 60_000, seed: 1 }.bytes();
            let took = (0..200_u64).map(|seed| {
                let id = Random(seed).id(32);
                let begin = cpu_micros();
                cache.put(&id, &bytes, now() + 600).expect("a record that is stored");
                cpu_micros() - begin
            });
            // The first opens the store.
            println!("{}", took.skip(1).max().unwrap_or_default());
        }
        other => panic!("no such role: {other}"),
    }
}

#[test]
fn a_log_function_that_does_not_return_keeps_nobody_else_from_storing() {
    let scratch = Scratch::new("blocked-log");
    let path = scratch.join("store");
    let mut other = Worker::open(&path, OPTIONS);
    other.put(b"before", RECORD, now() + 600).expect("a record that is stored");
    let mut blocked = Worker::start("listens", &[text(&path)]);
    let message = blocked.hear();
    assert!(message.contains("no room for the store to grow"), "{message}");
    let begin = other.stat("generation");
    let busy = (0..500).filter(|seed| other.put(&Random(20_000 + seed).id(32), RECORD, now() + 600).is_err()).count();
    assert_eq!(busy, 0, "puts of 500 that a blocked log function of another process has cost");
    assert_eq!(other.stat("generation"), begin, "a blocked log function is taken for a writer that is stopped");
}

/// A worker that fills the store, with another fallocate(2).
fn fills(scratch: &Scratch, path: &Path, options: &str, mib: &str, fallocate: &str) -> Worker {
    let library = preload(scratch, "fallocate");
    let arguments = [text(path), options, mib];
    let mut worker = Worker::start_with("fills", &arguments, |command| {
        command.env("LD_PRELOAD", library).env("SESSCACHE_TEST_FALLOCATE", fallocate);
    });
    assert_eq!(worker.hear(), "begins");
    worker
}

#[test]
fn a_file_grows_in_small_steps_outside_the_write_lock() {
    let scratch = Scratch::new("slow-growth");
    let path = scratch.join("store");
    // A step takes twice as long as anybody waits for the lock, and what is stored meanwhile needs less than is ready. Who stores
    // most is the first to notice.
    let options = "capacity=4GiB deadline=50ms";
    let mut other = Worker::open(&path, options);
    let record = Data { len: 100, seed: 2 };
    other.put(b"before", record, now() + 600).expect("a record that is stored");
    let mut filler = fills(&scratch, &path, options, "4", "100");
    let (begin, mut puts) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(2) {
        other
            .put(&Random(50_000 + puts).id(32), record, now() + 600)
            .expect("a put while another process grows the file");
        puts += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(puts > 20, "{puts} puts while the file grew show nothing");
    assert_eq!(filler.hear(), "0", "puts that are refused while the file grows");
}

#[test]
fn the_longest_put_of_a_filling_store_is_within_the_deadline_whatever_the_capacity() {
    const DEADLINE: u64 = 5_000;
    for capacity in ["64MiB", "4GiB"] {
        let longest = |run: usize| -> u64 {
            let scratch = Scratch::in_memory("filling");
            let path = scratch.join(&format!("store{run}"));
            let options = format!("capacity={capacity} deadline=1s");
            let mut worker = Worker::start("times", &[text(&path), &options]);
            worker.hear().parse().expect("a number")
        };
        // The machine may take its time from any of them, and shorten none.
        let runs: Vec<u64> = (0..5).map(longest).take_while(|longest| *longest >= DEADLINE).collect();
        assert!(runs.len() < 5, "{capacity}: the longest put of each run cost {runs:?} microseconds");
    }
}

#[test]
fn a_step_that_signals_interrupt_again_and_again_is_given_up() {
    let scratch = Scratch::new("interrupted-growth");
    let path = scratch.join("store");
    let mut other = Worker::open(&path, OPTIONS);
    other.put(b"before", RECORD, now() + 600).expect("a record that is stored");
    let mut filler = fills(&scratch, &path, OPTIONS, "2", "0");
    let refused: u64 = filler.hear().parse().expect("a number");
    assert!(refused > 0, "the file has grown without fallocate(2)");
    other.put(b"after", RECORD, now() + 600).expect("a record that is stored, with a step of its own");
}
