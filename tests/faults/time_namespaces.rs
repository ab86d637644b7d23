//! Containers may have time namespaces, in which the monotonic clocks are others. Processes that share a store across them must
//! neither take each other for stopped, nor wait for one that is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{monotonic, not_tried, now, open, text, Data, Random, Scratch, Worker};

support::roles!(work: "tells the clock", "writes");

const OPTIONS: &str = "capacity=4MiB deadline=50ms";
/// A put of it takes long enough to be met inside.
const LONG: Data = Data { len: 60_000, seed: 9 };
/// Seconds by which the namespace is ahead.
const AHEAD: u64 = 1_000_000_000;
/// After this, nobody waits for a writer that does not move.
const LEFT_BEHIND: Duration = Duration::from_secs(20);

fn work(role: &str, arguments: &[String]) {
    match role {
        "tells the clock" => println!("{}", monotonic()),
        "writes" => {
            let cache = open(Path::new(&arguments[0]), OPTIONS);
            let bytes = LONG.bytes();
            println!("begins");
            loop {
                let _ = cache.put(b"stopped", &bytes, now() + 600);
            }
        }
        other => panic!("no such role: {other}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Here,
    Ahead,
}

impl Place {
    fn start(self, role: &str, arguments: &[&str]) -> Worker {
        if let Place::Here = self {
            return Worker::start(role, arguments);
        }
        let mut unshare = Command::new("unshare");
        let ahead = AHEAD.to_string();
        unshare.args(["--time", "--monotonic", &ahead, "--boottime", &ahead, "--"]);
        unshare.arg(std::env::current_exe().expect("the path of this program")).args(arguments);
        Worker::run_as(role, unshare)
    }

    fn open(self, path: &Path) -> Worker {
        let mut worker = self.start("serve", &[]);
        worker.reopen(path, OPTIONS).expect("a worker that opens the store");
        worker
    }
}

/// Whether this machine lets this user have such a namespace; says so if not.
fn can_be_tried() -> bool {
    let clock = Place::Ahead.start("tells the clock", &[]).try_hear(LEFT_BEHIND);
    let nanos = clock.and_then(|clock| clock.parse::<u64>().ok());
    let shifted = nanos.is_some_and(|nanos| nanos > AHEAD * 1_000_000_000);
    if !shifted {
        not_tried("time namespaces", "none can be made (CAP_SYS_ADMIN, Linux 5.6 and unshare(1) are needed)");
    }
    shifted
}

fn put(worker: &mut Worker, seed: u64) -> bool {
    worker.put(&Random(seed).id(32), Data { len: 200, seed }, now() + 600).is_ok()
}

/// A writer that is stopped inside a write, and one elsewhere that has met it there.
fn stopped_in_a_write(path: &Path, (writer, other): (Place, Place)) -> (Worker, Worker) {
    let mut stopped = writer.start("writes", &[text(path)]);
    assert_eq!(stopped.hear(), "begins");
    for n in 0..400 {
        std::thread::sleep(Duration::from_micros(500 + n * 37 % 1_000));
        // It is not impatient yet: what it waits for in vain is held by somebody who does not move.
        let mut other = other.open(path);
        stopped.signal(libc::SIGSTOP);
        if !put(&mut other, 1_000 + n) {
            return (stopped, other);
        }
        stopped.signal(libc::SIGCONT);
    }
    panic!("a process that does nothing but write is never met inside a write");
}

#[test]
fn nobody_is_taken_for_stopped_by_the_clock_of_another_time_namespace() {
    if !can_be_tried() {
        return;
    }
    for places in [(Place::Here, Place::Ahead), (Place::Ahead, Place::Here)] {
        let scratch = Scratch::new("time-suspicion");
        let path = scratch.join("store");
        let mut before = Place::Here.open(&path);
        let begin = before.stat("generation");
        let (stopped, mut other) = stopped_in_a_write(&path, places);
        stopped.signal(libc::SIGCONT);
        assert_eq!(other.stat("generation"), begin, "{places:?}: who writes for a moment is taken for stopped");
        let again = (0..200).any(|seed| {
            std::thread::sleep(Duration::from_millis(10));
            put(&mut other, seed)
        });
        assert!(again, "{places:?}: the store stays shut");
    }
}

#[test]
fn a_writer_that_is_stopped_in_another_time_namespace_is_left_behind() {
    if !can_be_tried() {
        return;
    }
    for places in [(Place::Here, Place::Ahead), (Place::Ahead, Place::Here)] {
        let scratch = Scratch::new("time-stopped");
        let path = scratch.join("store");
        let (_stopped, mut other) = stopped_in_a_write(&path, places);
        let (begin, mut seed) = (Instant::now(), 0);
        while !put(&mut other, seed) {
            assert!(begin.elapsed() < LEFT_BEHIND, "{places:?}: all puts are refused because a writer is stopped");
            std::thread::sleep(Duration::from_millis(100));
            seed += 1;
        }
        assert!(put(&mut places.0.open(&path), 100_000), "{places:?}: the store stays shut for others");
    }
}
