//! A process is stopped while it holds one of the locks that LMDB itself waits for without a deadline: the one under which
//! reader slots are taken, or the lock file's as the first who opens it. Those who come after it must not wait.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{now, resume_client, Data, Random, Scratch, Server, Tls, Worker, BOTH};

/// What a busy machine adds to every wait.
const SCHEDULING: Duration = Duration::from_secs(2);
const OPTIONS: &str = "capacity=1MiB";
const KEPT: Data = Data { len: 300, seed: 5 };
/// Where LMDB's locks lie in lock.mdb (mdb.c: MDB_txninfo): behind two integers, and on the second cache line. musl and
/// other processors have other mutexes.
const SLOTS: usize = 8;
const WRITER: usize = 64;

support::roles!(work: "slots", "opening");

/// Holds a lock until it is told to let go of it, as a process does that is stopped at that moment.
fn work(role: &str, arguments: &[String]) {
    let open = || OpenOptions::new().read(true).write(true).open(&arguments[0]).expect("the lock file");
    match role {
        "slots" => {
            let file = open();
            // SAFETY: a new mapping at an address of the kernel's choice.
            let start = unsafe {
                let both = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(std::ptr::null_mut(), 4096, both, libc::MAP_SHARED, file.as_raw_fd(), 0)
            };
            assert_ne!(start, libc::MAP_FAILED, "the lock file cannot be mapped");
            // SAFETY: within the mapping.
            let slots = unsafe { start.cast::<u8>().add(SLOTS) }.cast();
            // SAFETY: LMDB has made a mutex there.
            let locked = unsafe { libc::pthread_mutex_lock(slots) };
            assert_eq!(locked, 0, "the lock of the reader slots");
            stop();
            // SAFETY: locked above.
            unsafe { libc::pthread_mutex_unlock(slots) };
            println!("let go");
            // LMDB's lock on the file would go with this descriptor, if this process had one.
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        "opening" => {
            let file = open();
            // SAFETY: all-zero is a valid flock.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as libc::c_short;
            lock.l_len = 1;
            // SAFETY: F_SETLK reads the struct it is given.
            let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock) };
            assert_eq!(locked, 0, "somebody else has the store open");
            stop();
        }
        other => panic!("no such role: {other}"),
    }
}

fn stop() {
    println!("holds");
    // SAFETY: raise touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn lock_file(store: &Path) -> PathBuf {
    let entries = fs::read_dir(store).expect("a store").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.map(|path| path.join("lock.mdb")).filter(|path| path.exists()).collect();
    assert_eq!(found.len(), 1, "{found:?}: one generation");
    found.remove(0)
}

/// A process that holds a lock and is stopped.
fn stopped_with(role: &str, store: &Path) -> Worker {
    let lock = lock_file(store);
    let mut stopped = Worker::start(role, &[support::text(&lock)]);
    assert_eq!(stopped.hear(), "holds");
    let stat = format!("/proc/{}/stat", stopped.pid());
    let is_stopped = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    assert!(support::wait_until(SCHEDULING, is_stopped), "it is not stopped");
    stopped
}

/// A store with a record, and who put it.
fn store_with_a_record(path: &Path) -> Worker {
    let mut worker = Worker::open(path, OPTIONS);
    worker.put(b"kept", KEPT, now() + 600).expect("a record that is stored");
    worker
}

fn in_time<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let done = f();
    assert!(
        since.elapsed() < support::patience(SCHEDULING),
        "{what} waits {:?} for a process that is stopped",
        since.elapsed()
    );
    done
}

/// A server whose connections have a process each: everyone takes a reader slot, and the first opens the store.
fn visit(server: &Server, tls: Tls, arguments: &[&str]) -> u32 {
    in_time("a handshake", || resume_client(server.port, 1, tls, arguments)).resumed
}

#[test]
fn nobody_waits_for_a_process_that_is_stopped_while_it_takes_a_reader_slot() {
    let scratch = Scratch::new("stopped-slots");
    let path = scratch.join("store");
    let mut before = store_with_a_record(&path);
    let server = Server::start("fork_server", &["-s", support::text(&path), "-o", OPTIONS]);
    let sessions = BOTH.map(|tls| (tls, support::text(&scratch.join(&format!("{tls:?}"))).to_owned()));
    for (tls, session) in &sessions {
        visit(&server, *tls, &["-o", session]);
    }
    let begin = before.stat("generation");
    let mut stopped = stopped_with("slots", &path);
    for (tls, session) in &sessions {
        assert_eq!(visit(&server, *tls, &["-i", session]), 1, "{tls:?}: a session is lost while a process is stopped");
    }
    let mut other = Worker::open(&path, OPTIONS);
    in_time("a lookup", || assert!(other.get(b"kept", KEPT), "a record is lost while a process is stopped"));
    in_time("a put", || other.put(b"new", KEPT, now() + 600).expect("a record that is stored"));
    assert!(before.get(b"new", KEPT), "who has a slot misses what others put");
    // Who goes on without a slot for long leaves this generation behind.
    let left = support::wait_until(Duration::from_secs(20), || {
        in_time("a lookup", || assert!(other.get(b"kept", KEPT), "a record is lost"));
        other.stat("generation") > begin
    });
    assert!(left, "the others wait for writers at every lookup for as long as it is stopped");
    for (tls, session) in &sessions {
        assert_eq!(visit(&server, *tls, &["-i", session]), 1, "{tls:?}: a session of before is lost");
    }
    stopped.signal(libc::SIGCONT);
    assert_eq!(stopped.hear(), "let go");
    assert!(Worker::open(&path, OPTIONS).get(b"kept", KEPT), "nobody finds the record when it goes on");
}

#[test]
fn others_get_reader_slots_after_a_process_was_killed_while_it_took_one() {
    let scratch = Scratch::new("killed-slots");
    let path = scratch.join("store");
    let mut before = store_with_a_record(&path);
    let begin = before.stat("generation");
    drop(stopped_with("slots", &path));
    let mut other = Worker::open(&path, OPTIONS);
    in_time("a lookup", || assert!(other.get(b"kept", KEPT), "a record is lost with the process"));
    assert_eq!(other.stat("misses_unavailable"), 0, "a lookup is refused after a process was killed");
    assert_eq!(other.stat("generation"), begin, "a process that was killed while it took a slot costs a generation");
}

#[test]
fn nobody_waits_for_a_process_that_is_stopped_while_it_opens_the_store() {
    let scratch = Scratch::new("stopped-opening");
    let path = scratch.join("store");
    store_with_a_record(&path).finish();
    let stopped = stopped_with("opening", &path);
    let server = Server::start("fork_server", &["-s", support::text(&path), "-o", OPTIONS]);
    for tls in BOTH {
        visit(&server, tls, &[]);
    }
    let mut other = Worker::open(&path, OPTIONS);
    let put = in_time("a put", || other.put(b"new", KEPT, now() + 600));
    assert!(put.is_err(), "nobody waits, but LMDB would have to: this shows nothing");
    stopped.signal(libc::SIGCONT);
    let used = support::wait_until(Duration::from_secs(10), || other.put(b"new", KEPT, now() + 600).is_ok());
    assert!(used, "the store stays shut when the process goes on");
    assert!(other.get(b"kept", KEPT), "a record is lost because a process was stopped");
}

#[test]
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
fn nobody_waits_for_a_lock_of_lmdb_that_is_written_over() {
    // A thread that there is none of; and something that pthread would abort the process for.
    let held = 0x3fff_ffff_u32.to_ne_bytes();
    let kind = 0x0000_00ff_u32.to_ne_bytes();
    for (name, at, bytes) in [
        ("the slots' holder", SLOTS, held),
        ("the slots' kind", SLOTS + 16, kind),
        ("the writer's holder", WRITER, held),
        ("the writer's kind", WRITER + 16, kind),
        ("the number of slots", 56, [0xff; 4]),
    ] {
        let scratch = Scratch::new("overwritten-lock");
        let path = scratch.join("store");
        let mut before = store_with_a_record(&path);
        let file = OpenOptions::new().write(true).open(lock_file(&path)).expect("the lock file");
        file.write_all_at(&bytes, at as u64).expect("a lock that is written over");
        let mut other = Worker::open(&path, OPTIONS);
        for worker in [&mut other, &mut before] {
            let put = |seed| in_time(name, || worker.put(&Random(seed).id(32), KEPT, now() + 600).is_ok());
            assert!((0..20).any(put), "{name}: nobody can store any more");
        }
        other.put(b"afterwards", KEPT, now() + 600).expect("a record that is stored");
        in_time(name, || assert!(before.get(b"afterwards", KEPT), "{name}: two processes are in two stores"));
    }
}
