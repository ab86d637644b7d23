//! A control group with less memory than a store may have: a container, or a service with MemoryMax=. The pages of a store on tmpfs
//! count against it, and when they do not fit, the kernel kills.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sesscache::inspect::Inspect;
use sesscache::{Cache, Options};
use support::{now, text, Data, Random, Scratch, Worker};

support::roles!(work: "fills a store within a memory limit");

const LIMIT: u64 = 20 << 20;

fn work(_: &str, arguments: &[String]) {
    let [place, group, options] = arguments else { panic!("three arguments") };
    fs::write(Path::new(group).join("cgroup.procs"), "0").expect("to join the group");
    let path = Path::new(place).join("store");
    let cache = Cache::open(&path, &Options::parse(options).expect("options")).expect("a store");
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    cache.set_log(Some(Box::new(move |level, line| {
        heard.lock().expect("a list").push(format!("{level} {}", line.to_string_lossy()));
    })));
    let capacity = Inspect::open(&path, None).expect("a store").capacity() >> 20;
    println!("{capacity} {}", said.lock().expect("a list").join("|"));
    // Flushed by hand: what comes next may be the end.
    std::io::stdout().flush().expect("a pipe");
    let stored = (0..30_000_u64)
        .filter(|seed| cache.put(&Random(*seed).id(32), &Data { len: 800, seed: *seed }.bytes(), now() + 600).is_ok())
        .count();
    println!("{stored}");
}

/// A group of this test's alone; gone with it.
struct Group(PathBuf);

impl Group {
    /// With the limit, if groups can be made here.
    fn new(name: &str) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path =
            |prefix: &str| own.lines().find_map(|line| line.splitn(3, ':').nth(2).filter(|_| line.contains(prefix)));
        let places = [
            (Some("/sys/fs/cgroup/memory".to_owned()), "memory.limit_in_bytes"),
            (path(":memory:").map(|path| format!("/sys/fs/cgroup/memory{path}")), "memory.limit_in_bytes"),
            (Some("/sys/fs/cgroup".to_owned()), "memory.max"),
            (path("0::").map(|path| format!("/sys/fs/cgroup{path}")), "memory.max"),
        ];
        let made = places.into_iter().find_map(|(place, limit)| {
            let group = Path::new(&place?).join(format!("sesscache-{name}-{}", std::process::id()));
            fs::create_dir(&group).ok()?;
            let group = Group(group);
            fs::write(group.0.join(limit), LIMIT.to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            support::not_tried("a memory limit", "no control group with a memory limit can be made here");
        }
        made
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may still be ending.
        let _ = support::wait_until(std::time::Duration::from_secs(10), || fs::remove_dir(&self.0).is_ok());
    }
}

/// What the worker says first, and how it ends: with so many records stored, or killed.
fn fill(name: &str, options: &str) -> Option<(String, Result<usize, i32>)> {
    let group = Group::new(name)?;
    let scratch = Scratch::new(name);
    let place = scratch.join("tmpfs");
    fs::create_dir(&place).expect("a directory");
    let mut command = support::in_namespaces("a memory limit", &["-m"])?;
    command.args(["sh", "-ec", "mount -t tmpfs -o mode=700 none \"$2\"; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().expect("the path of this program"));
    command.args([text(&place), text(&group.0), options]);
    let mut worker = Worker::run_as("fills a store within a memory limit", command);
    let said = worker.hear();
    let end = match worker.try_hear(std::time::Duration::from_secs(60)) {
        Some(stored) => Ok(stored.parse().expect("a number")),
        None => Err(worker.kill().signal().unwrap_or_default()),
    };
    Some((said, end))
}

#[test]
fn a_store_that_nobody_gave_a_capacity_fits_the_memory_limit() {
    let Some((said, end)) = fill("default", "") else { return };
    assert!(said.starts_with("5 5 "), "a quarter of the limit, and a notice: {said}");
    assert!(said.contains("the memory limit is 20 MiB: the store has 5 MiB instead of 64"), "{said}");
    assert_eq!(end, Ok(30_000), "the worker that fills the store is killed, or its puts are refused");
}

#[test]
fn a_capacity_beyond_the_memory_limit_is_warned_of() {
    let Some((said, end)) = fill("given", "capacity=64MiB") else { return };
    assert!(said.starts_with("64 4 ") && said.contains("capacity=64MiB") && said.contains("20 MiB"), "{said}");
    assert!(said.contains("give capacity=5MiB"), "{said}");
    assert_eq!(end, Err(libc::SIGKILL), "pages of a tmpfs count against no limit here: the other test shows nothing");
    let Some((said, end)) = fill("small", "capacity=4MiB") else { return };
    assert_eq!(said.trim_end(), "4", "a capacity that fits is warned of");
    assert_eq!(end, Ok(30_000));
}
