//! A file system that is frozen, as for a snapshot of LVM: what writes to it waits until the thaw, and be it to a page of a mapping,
//! such as the counters that a lookup writes. Nothing is lost by it. A store in memory is out of its reach.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sesscache::Cache;
use support::{now, open, text, Data, Random, Scratch, Worker};

support::roles!(work: "looks up while a disk is frozen");

const FROZEN: Duration = Duration::from_secs(2);
const THREADS: u64 = 4;

/// Thaws it in any case: a file system that stays frozen holds whoever touches it for ever.
struct Frozen<'p>(&'p Path);

impl Frozen<'_> {
    fn new(place: &Path) -> Frozen<'_> {
        run("-f", place);
        Frozen(place)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("-u", self.0);
    }
}

fn run(action: &str, place: &Path) {
    let status = Command::new("fsfreeze").arg(action).arg(place).status().expect("fsfreeze of util-linux");
    assert!(status.success(), "fsfreeze {action}: {status}");
}

fn has(cache: &Cache, seed: u64) -> bool {
    let data = Data { len: 400, seed };
    cache.get(&Random(seed).id(32), |bytes| assert!(data.is(bytes), "another record is returned")).is_ok()
}

/// How often a cache says that it is on a disk, from when it was opened.
fn warnings(cache: &Cache) -> usize {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    cache.set_log(Some(Box::new(move |_, line| {
        count.fetch_add(usize::from(line.to_string_lossy().contains("the store is on a disk")), Ordering::Relaxed);
    })));
    cache.set_log(None);
    heard.load(Ordering::Relaxed)
}

/// With a store on the disk and one in memory. Says how many lookups each answered while the disk was frozen.
fn work(_: &str, arguments: &[String]) {
    let (disk, memory) = (Path::new(&arguments[0]), Path::new(&arguments[1]));
    let caches = [open(&disk.join("store"), "capacity=1MiB"), open(&memory.join("store"), "capacity=1MiB")];
    assert_eq!(warnings(&caches[0]), 1, "nobody is told that a store on a disk may hold up handshakes");
    assert_eq!(warnings(&caches[1]), 0, "a store in memory is warned of");
    let meant = open(&disk.join("meant"), "capacity=1MiB disk=on");
    assert_eq!(warnings(&meant), 0, "a disk that is meant is warned of");
    drop(meant);
    for cache in &caches {
        for seed in 0..THREADS {
            let data = Data { len: 400, seed };
            cache.put(&Random(seed).id(32), &data.bytes(), now() + 600).expect("a record that is stored");
        }
    }
    let answered = [const { AtomicU64::new(0) }; 2];
    let longest = AtomicU64::new(0);
    let frozen = Frozen::new(disk);
    let end = Instant::now() + FROZEN;
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            for (cache, answered) in caches.iter().zip(&answered) {
                let longest = &longest;
                scope.spawn(move || {
                    while Instant::now() < end {
                        let begin = Instant::now();
                        assert!(has(cache, seed), "a record is lost");
                        answered.fetch_add(1, Ordering::Relaxed);
                        longest.fetch_max(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
                    }
                });
            }
        }
        std::thread::sleep(FROZEN);
        drop(frozen);
    });
    for cache in &caches {
        assert!((0..THREADS).all(|seed| has(cache, seed)), "a record is lost after the thaw");
        let data = Data { len: 400, seed: 100 };
        cache.put(&Random(100).id(32), &data.bytes(), now() + 600).expect("a record that is stored after the thaw");
    }
    let [disk, memory] = answered.map(AtomicU64::into_inner);
    println!("{disk} {memory} {}", longest.into_inner());
}

#[test]
fn a_frozen_disk_holds_its_own_store_until_the_thaw_and_loses_nothing() {
    const WHAT: &str = "a frozen file system";
    let scratch = Scratch::new("frozen");
    let Some(mut command) = support::in_namespaces(WHAT, &["-m"]) else { return };
    let mount = "mkdir \"$1/disk\" \"$1/memory\"; truncate -s 32M \"$1/image\"; mkfs.ext4 -q \"$1/image\"; \
                 mount -o loop \"$1/image\" \"$1/disk\"; chmod 700 \"$1/disk\"; \
                 mount -t tmpfs -o mode=700 none \"$1/memory\"";
    let mut trial = Command::new("unshare");
    trial.args(command.get_args()).args(["sh", "-ec", mount, "sh", text(scratch.path())]);
    let tried = trial.output().expect("unshare of util-linux");
    if !tried.status.success() {
        return support::not_tried(WHAT, String::from_utf8_lossy(&tried.stderr).trim());
    }
    let clear = "rm -rf \"$1/disk\" \"$1/memory\" \"$1/image\"";
    command.args(["sh", "-ec", &format!("{clear}; {mount}; exec \"$2\" \"$1/disk\" \"$1/memory\""), "sh"]);
    command.arg(scratch.path()).arg(std::env::current_exe().expect("the path of this program"));
    let mut worker = Worker::run_as("looks up while a disk is frozen", command);
    let said = worker.hear();
    worker.finish();
    let numbers: Vec<u64> = said.split(' ').map(|n| n.parse().expect("a number")).collect();
    let [disk, memory, longest] = numbers[..] else { panic!("{said}") };
    assert!(memory > 1_000, "a store in memory waits for a disk: {said}");
    println!("{disk} lookups on the frozen disk, {memory} in memory; the longest took {longest} ms");
}
