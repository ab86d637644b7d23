//! What a process does for itself - a log function that does not return, a file that has to grow - keeps the puts of no other
//! process waiting: the write lock is theirs as well.

#[path = "support/store.rs"]
mod store;

use std::path::Path;

use store::{now, open, Data, Random, Scratch, Worker};

store::workers!(work);

const OPTIONS: &str = "capacity=16MiB";
const RECORD: Data = Data { len: 3_000, seed: 1 };

fn put(cache: &sesscache::Cache, seed: u64) -> bool {
    cache.put(&Random(seed).id(32), &RECORD.bytes(), now() + 600).is_ok()
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
        _ => store::serve(),
    }
}

#[test]
fn a_log_function_that_does_not_return_keeps_nobody_else_from_storing() {
    let scratch = Scratch::new("blocked-log");
    let path = scratch.join("store");
    let mut other = Worker::open(&path, OPTIONS);
    other.put(b"before", RECORD, now() + 600).expect("a record that is stored");
    let mut blocked = Worker::start("listens", &[path.to_str().expect("UTF-8")]);
    let message = blocked.hear();
    assert!(message.contains("no room for the store to grow"), "{message}");
    let begin = other.stat("generation");
    let busy = (0..500).filter(|seed| other.put(&Random(20_000 + seed).id(32), RECORD, now() + 600).is_err()).count();
    assert_eq!(busy, 0, "puts of 500 that a blocked log function of another process has cost");
    assert_eq!(other.stat("generation"), begin, "a blocked log function is taken for a writer that is stopped");
}
