//! A store that is closed leaves nothing behind, whatever the threads that used it do now.

use std::fs;
use std::path::Path;
use std::sync::{mpsc, Arc, Barrier};

use sesscache::Cache;
use support::{now, open, text, Data, Scratch, Worker};

const THREADS: usize = 4;
/// More than a process can have open at once.
const DIRECTORIES: usize = 300;

support::roles!(work: "serves directories in turn");

/// Threads that use each directory once and then sleep, for ever, as those of a server's pool may.
fn work(_: &str, arguments: &[String]) {
    let scratch = Path::new(&arguments[0]);
    let open_files = || fs::read_dir("/proc/self/fd").expect("the descriptors").count();
    let maps = || fs::read_to_string("/proc/self/maps").expect("the maps").matches("data.mdb").count();
    let before = open_files();
    let mut sleeping = Vec::new();
    for n in 0..DIRECTORIES {
        let path = scratch.join(n.to_string());
        let cache: Arc<Cache> = Arc::new(open(&path, "capacity=1MiB"));
        if n % 100 == 0 {
            sleeping.extend((0..THREADS).map(|_| pool_thread()));
        }
        let used = Arc::new(Barrier::new(THREADS + 1));
        // The last threads started work on; the others sleep from now on.
        for pool in sleeping.iter().rev().take(THREADS) {
            pool.send((Arc::clone(&cache), Arc::clone(&used))).expect("a thread of the pool");
        }
        used.wait();
        // Until the threads have let go of the cache.
        while Arc::strong_count(&cache) > 1 {
            std::thread::yield_now();
        }
        drop(cache);
        fs::remove_dir_all(&path).expect("a store that is removed");
    }
    println!("{} {}", open_files() - before, maps());
}

type Job = (Arc<Cache>, Arc<Barrier>);

fn pool_thread() -> mpsc::Sender<Job> {
    let (send, receive) = mpsc::channel::<Job>();
    std::thread::spawn(move || {
        for (cache, used) in receive {
            let data = Data { len: 100, seed: 1 };
            cache.put(b"session", &data.bytes(), now() + 600).expect("a record that is stored");
            cache.get(b"session", |bytes| assert!(data.is(bytes))).expect("a record that is found");
            drop(cache);
            used.wait();
        }
    });
    send
}

#[test]
fn a_closed_store_leaves_nothing_to_the_threads_that_used_it() {
    let scratch = Scratch::new("closing");
    let mut server = Worker::start("serves directories in turn", &[text(scratch.path())]);
    assert_eq!(server.hear(), "0 0", "descriptors and maps that are left of {DIRECTORIES} directories");
}
