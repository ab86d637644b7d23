//! A lookup makes no system call and allocates nothing, hit or miss, in Rust, LMDB or OpenSSL, and a put into a store that is written through the map
//! makes none either: a cache that costs a server calls or locks for every connection is not worth having.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use sesscache::Cache;
use support::{now, Random, Scratch, Worker};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(number: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(at: *mut c_void, size: usize) -> *mut c_void;
}

// In place of the C library's, for Rust, LMDB and OpenSSL alike.

#[no_mangle]
extern "C" fn malloc(size: usize) -> *mut c_void {
    count();
    // SAFETY: any size may be asked for.
    unsafe { __libc_malloc(size) }
}

#[no_mangle]
extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count();
    // SAFETY: any size may be asked for.
    unsafe { __libc_calloc(number, size) }
}

#[no_mangle]
unsafe extern "C" fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
    count();
    // SAFETY: the caller's contract is the same.
    unsafe { __libc_realloc(at, size) }
}

const LOOKUPS: usize = 100_000;

/// A system call that shows in the trace where a part begins or ends.
fn mark(name: &str) {
    let _ = fs::metadata(format!("/mark/{name}"));
}

struct Filled {
    cache: Cache,
    ids: Vec<[u8; 32]>,
    absent: Vec<[u8; 32]>,
    forged: Vec<Vec<u8>>,
}

fn fill(path: &str, options: &str) -> Filled {
    let cache = support::open(path.as_ref(), options);
    let mut random = Random(1);
    let issue = |_| cache.issue_id(Duration::from_secs(600)).expect("an id");
    let ids: Vec<_> = (0..1_000).map(issue).collect();
    let absent = (0..1_000).map(issue).collect();
    for id in &ids {
        cache.put(id, &random.id(140), now() + 600).expect("a record that is stored");
    }
    let forged = (0..1_000).map(|_| random.id(32)).collect();
    Filled { cache, ids, absent, forged }
}

fn look_up(cache: &Cache, id: &[u8], found: bool) {
    assert_eq!(cache.get(id, |data| assert_eq!(data.len(), 140)).is_ok(), found);
}

support::roles!(work: "trace", "child", "allocations");

fn work(role: &str, arguments: &[String]) {
    let Filled { cache, ids, absent, forged } = fill(&arguments[0], &arguments[1]);
    // Warm: the seat is taken, the buffers have their size.
    look_up(&cache, &ids[0], true);
    match role {
        "trace" => {
            mark("hits");
            (0..LOOKUPS).for_each(|n| look_up(&cache, &ids[n % 1_000], true));
            mark("absent");
            (0..LOOKUPS).for_each(|n| look_up(&cache, &absent[n % 1_000], false));
            mark("forged");
            (0..LOOKUPS).for_each(|n| look_up(&cache, &forged[n % 1_000], false));
            // What the file grows by is reserved a MiB at a time.
            mark("puts");
            for _ in 0..LOOKUPS / 10 {
                let id = cache.issue_id(Duration::from_secs(600)).expect("an id");
                cache.put(&id, &[7; 140], now() + 600).expect("a record that is stored");
            }
            mark("end");
        }
        "child" => {
            // SAFETY: this process has one thread.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
            if child == 0 {
                mark("first");
                let found = cache.get(&ids[1], |data| assert_eq!(data.len(), 140)).is_ok();
                mark("end");
                // SAFETY: ends the child without running what the parent has registered.
                unsafe { libc::_exit(i32::from(!found)) };
            }
            let mut status = 0;
            // SAFETY: a child of this process; the status goes to a local.
            assert!(unsafe { libc::waitpid(child, &mut status, 0) } == child && status == 0, "no hit in the child");
        }
        "allocations" => {
            for (name, of) in [("hits", &ids), ("absent", &absent)] {
                let before = ALLOCATIONS.get();
                (0..LOOKUPS).for_each(|n| look_up(&cache, &of[n % 1_000], name == "hits"));
                println!("{name} {}", ALLOCATIONS.get() - before);
            }
        }
        role => panic!("no such role: {role}"),
    }
}

/// System calls between marks, by the trace.
fn calls<'a>(trace: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let lines = trace.lines().skip_while(|line| !line.contains(&format!("/mark/{from}"))).skip(1);
    lines.take_while(|line| !line.contains(&format!("/mark/{to}"))).collect()
}

/// What a role calls, and how long it takes.
fn traced(scratch: &Scratch, role: &str) -> (String, Duration) {
    let trace = scratch.join("trace");
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(&trace).arg(std::env::current_exe().expect("this program"));
    strace.arg(scratch.join("store")).arg("");
    let begin = Instant::now();
    let mut worker = Worker::run_as(role, strace);
    assert_eq!(worker.hear_rest(), [""; 0]);
    let trace = fs::read_to_string(&trace).expect("strace writes a trace");
    assert!(trace.contains("/mark/end"), "the worker did not come to its end");
    (trace, begin.elapsed())
}

#[test]
fn the_first_lookup_of_a_child_makes_few_system_calls() {
    let first_lookup = || {
        let scratch = Scratch::new("child");
        let (trace, _) = traced(&scratch, "child");
        // The parent waits meanwhile.
        let pid = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let child = trace.lines().find(|line| line.contains("/mark/first")).and_then(pid);
        let calls = calls(&trace, "first", "end").into_iter().filter(|line| pid(line) == child);
        calls.map(str::to_owned).collect::<Vec<_>>()
    };
    // On a busy machine the parent's look may be more than a second ago.
    let calls = (0..5).map(|_| first_lookup()).min_by_key(Vec::len).expect("one of them");
    // LMDB makes 16 of them. What the parent has looked at within the second, or has mapped, is not asked for again.
    assert!((16..=39).contains(&calls.len()), "{} system calls: {calls:#?}", calls.len());
}

#[test]
fn lookups_and_puts_make_no_system_call() {
    let scratch = Scratch::new("calls");
    let (trace, took) = traced(&scratch, "trace");
    // Once a second a process looks after its keys and its control file, and one for all after the rest.
    let upkeep = 40 * (took.as_secs() as usize + 1);
    for (from, to) in [("hits", "absent"), ("absent", "forged"), ("forged", "puts"), ("puts", "end")] {
        let mut calls = calls(&trace, from, to);
        // The random bytes of 64 ids come from the kernel at once.
        let asked = calls.len();
        calls.retain(|call| !call.contains("getrandom("));
        assert!(asked - calls.len() <= LOOKUPS / 10 / 64 + 1, "{from}: {} times getrandom", asked - calls.len());
        // 10,000 puts take 3 MiB, which are reserved in three steps of a few calls.
        let few = upkeep + if from == "puts" { 30 } else { 0 };
        assert!(calls.len() <= few, "{from}: {} system calls in {LOOKUPS} operations: {:?}", calls.len(), &calls[..20]);
    }
}

#[test]
fn misses_and_hits_allocate_nothing() {
    let scratch = Scratch::new("allocations");
    let path = scratch.join("store");
    let mut worker = Worker::start("allocations", &[path.to_str().expect("UTF-8"), ""]);
    for line in worker.hear_rest() {
        let (name, n) = line.split_once(' ').expect("a count");
        let n: usize = n.parse().expect("a number");
        // A refusal carries its sentence, which is the Rust API's; what is done before is allocated nowhere.
        let sentence = if name == "hits" { 0 } else { 1 };
        // Once a second, looking after files allocates their names.
        assert!(n >= LOOKUPS * sentence, "{name}: allocations are not counted");
        assert!(n <= LOOKUPS * sentence + 2_000, "{name}: {n} allocations in {LOOKUPS} lookups");
    }
}
