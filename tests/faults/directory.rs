//! The directory of a store: what is told to somebody who gives the wrong one, which boot of the machine its sessions are of, and
//! what becomes of a process whose directory is removed and made anew.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sesscache::inspect::{examine, Inspect, Verdict};
use sesscache::{Cache, Options, Status};
use support::{now, set_mode, Data, Scratch, Worker};

support::roles!(work: "doctor");

fn work(_: &str, arguments: &[String]) {
    let findings = examine(Path::new(&arguments[0]), None).expect("findings");
    findings.iter().for_each(|finding| println!("{}", finding.text));
}

const OPTIONS: &str = "capacity=1MiB deadline=1s";

fn open(path: &Path, options: &str) -> sesscache::Result<Cache> {
    Cache::open(path, &Options::parse(options).expect("options that are acceptable"))
}

fn refusal(path: &Path, options: &str) -> sesscache::Error {
    match open(path, options) {
        Ok(_) => panic!("{} is taken", path.display()),
        Err(error) => error,
    }
}

/// Neither chmod nor chown nor rm.
fn assert_harmless(text: &str) {
    for command in ["chmod", "chown", "rm ", "remove"] {
        assert!(!text.contains(command), "this may destroy a machine: {text}");
    }
}

#[test]
fn a_directory_that_others_use_is_refused_without_a_command() {
    for path in ["/", "/tmp", "/run", "/etc", "/dev", "/dev/shm", "/var", "/var/lib", "/usr", "/home", "/root"] {
        let error = refusal(path.as_ref(), OPTIONS);
        assert_eq!(error.status, Status::Invalid, "{path}: {error}");
        assert!(error.to_string().contains("a directory of its own, such as /run/NAME/tls"), "{path}: {error}");
        assert_harmless(&error.to_string());
    }
}

#[test]
fn a_private_directory_with_other_things_in_it_is_refused_and_left_as_it_is() {
    for name in ["letters", ".profile", "control.conf", "data.mdb"] {
        let scratch = Scratch::new("own");
        let home = scratch.join("home");
        fs::create_dir(&home).expect("a directory");
        set_mode(&home, 0o700);
        fs::write(home.join(name), "mine").expect("a file");
        let error = refusal(&home, OPTIONS);
        assert!(error.to_string().contains("a directory of its own"), "{name}: {error}");
        let left: Vec<_> =
            fs::read_dir(&home).expect("the directory").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(left, [name], "something was made among what is there");
        // Also while it is open to others: no command before its premise.
        set_mode(&home, 0o755);
        assert_harmless(&refusal(&home, OPTIONS).to_string());
    }
}

#[test]
fn an_empty_directory_that_is_open_to_others_gets_its_command() {
    let scratch = Scratch::new("empty");
    let path = scratch.join("store");
    fs::create_dir(&path).expect("a directory");
    set_mode(&path, 0o755);
    let error = refusal(&path, OPTIONS);
    assert!(error.to_string().contains(&format!("run: chmod 0700 {}", path.display())), "{error}");
}

#[test]
fn doctor_says_of_a_directory_without_a_store_that_there_is_none() {
    let scratch = Scratch::new("doctor");
    let damaged = scratch.join("debian");
    fs::create_dir(&damaged).expect("a directory");
    fs::write(damaged.join("control"), "Source: something else\n").expect("a file");
    symlink("/etc/passwd", damaged.join("link")).expect("a link");
    for path in [Path::new("/etc"), Path::new("/run"), &damaged, scratch.path()] {
        let findings = examine(path, None).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(findings.len(), 1, "{}: more is said than that there is no store", path.display());
        assert!(findings[0].text.contains("control"), "{}", findings[0].text);
        let Verdict::Do(advice) = &findings[0].verdict else { panic!("{}", findings[0].text) };
        assert_harmless(&findings[0].text);
        assert_harmless(advice);
    }
}

#[test]
fn doctor_removes_nothing_that_the_store_has_not_made() {
    let scratch = Scratch::new("strangers");
    let path = scratch.join("store");
    let cache = support::open(&path, OPTIONS);
    cache.put(b"id", b"data", now() + 100).expect("a record that is stored");
    fs::write(path.join("letters"), "mine").expect("a file");
    symlink("/etc/passwd", path.join("key.0123456789abcdef")).expect("a link");
    drop(cache);
    let findings = examine(&path, None).expect("a store");
    let strangers: Vec<_> =
        findings.iter().filter(|finding| finding.text.contains("does not belong to a store")).collect();
    assert_eq!(strangers.len(), 2, "not both are found");
    for finding in strangers {
        let Verdict::Do(advice) = &finding.verdict else { panic!("{}", finding.text) };
        assert_harmless(advice);
    }
}

#[test]
fn ids_that_are_nobodys_are_refused_before_anything_is_made() {
    let scratch = Scratch::new("ids");
    let path = scratch.join("store");
    for options in ["owner=4294967295", "group=4294967295", "owner=4294967296", "owner=-1", "owner=+0", "group=+0"] {
        let error = refusal(&path, options);
        assert_eq!(error.status, Status::Invalid, "{options}: {error}");
        assert!(!path.exists(), "{options}: a directory was made");
    }
}

/// A worker that cannot see which boot of the machine it is. `None`, and said, where nobody may be kept from it.
fn without_boot_id(role: &str, arguments: &[&Path]) -> Option<Worker> {
    let mut command = support::in_namespaces("a process that cannot read the boot id", &["-m"])?;
    let script = "mount --bind /dev/null /proc/sys/kernel/random/boot_id; exec \"$0\" \"$@\"";
    command.args(["sh", "-ec", script]).arg(std::env::current_exe().expect("this program")).args(arguments);
    Some(Worker::run_as(role, command))
}

fn data(seed: u64) -> Data {
    Data { len: 100, seed }
}

#[test]
fn who_cannot_tell_the_boot_shares_a_store_with_who_can() {
    for blind_first in [true, false] {
        let scratch = Scratch::new("boot");
        let path = scratch.join("store");
        let Some(blind) = without_boot_id("serve", &[]) else { return };
        let mut workers = [blind, Worker::start("serve", &[])];
        let order = if blind_first { [0, 1] } else { [1, 0] };
        for who in order {
            workers[who].reopen(&path, OPTIONS).expect("a store that opens");
            for n in 0..50 {
                let id = [who as u8, n];
                workers[who].put(&id, data(u64::from(n)), now() + 600).expect("a record that is stored");
            }
        }
        let mut inspect = Inspect::open(&path, None).expect("a store to look at");
        assert_eq!(
            inspect.stats().expect("statistics").get("sessions"),
            Some(100),
            "somebody outside sees another store"
        );
        inspect.into_cache().expect("a store to be changed").sweep(usize::MAX).expect("a sweep");
        for worker in &mut workers {
            for who in 0..2 {
                let found = (0..50).filter(|n| worker.get(&[who, *n], data(u64::from(*n)))).count();
                assert_eq!(found, 50, "blind first: {blind_first}; sessions of {who} are lost");
            }
        }
        workers.into_iter().for_each(Worker::finish);
    }
}

#[test]
fn a_store_of_which_nobody_could_tell_the_boot_says_so() {
    let scratch = Scratch::new("nobody");
    let path = scratch.join("store");
    let Some(mut blind) = without_boot_id("serve", &[]) else { return };
    let doctor = || without_boot_id("doctor", &[&path]).expect("as a moment ago").hear_rest();
    blind.reopen(&path, OPTIONS).expect("a store that opens");
    blind.put(b"id", data(1), now() + 600).expect("a record that is stored");
    let said = doctor();
    assert!(said.iter().any(|line| line.contains("boot_id")), "{said:?}");
    Worker::open(&path, OPTIONS).finish();
    let said = doctor();
    assert!(said.iter().all(|line| !line.contains("boot_id")), "somebody could tell: {said:?}");
    assert!(blind.get(b"id", data(1)), "a session is lost because somebody could tell the boot");
    blind.finish();
}

fn lock_files_open() -> usize {
    let mut files: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("descriptors")
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("lock.mdb")))
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .map(|meta| (meta.dev(), meta.ino()))
        .collect();
    let all = files.len();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), all, "one lock file is open twice in a process");
    all
}

#[test]
fn a_directory_that_is_removed_and_made_anew_is_opened_once() {
    let scratch = Scratch::new("anew");
    let path = scratch.join("store");
    let mut other = Worker::start("serve", &[]);
    let mut caches = vec![support::open(&path, OPTIONS)];
    caches[0].put(b"first", &data(0).bytes(), now() + 600).expect("a record that is stored");
    for round in 1_u8..6 {
        fs::remove_dir_all(&path).expect("remove the store");
        // As a server does that reloads: the old handle goes on beside the new one.
        caches.push(support::open(&path, OPTIONS));
        std::thread::sleep(Duration::from_millis(1_100));
        other.reopen(&path, OPTIONS).expect("a store that opens");
        let mut ids = Vec::new();
        for (n, cache) in caches.iter().enumerate() {
            // The first operation after a second looks whether the directory is still the same.
            let _ = cache.put(b"look", b"look", now() + 600);
            let id = [round, n as u8];
            cache.put(&id, &data(u64::from(round)).bytes(), now() + 600).expect("a record that is stored");
            ids.push(id);
        }
        assert!(lock_files_open() >= 1);
        for id in ids {
            assert!(other.get(&id, data(u64::from(round))), "round {round}: another process does not find {id:?}");
            for (n, cache) in caches.iter().enumerate() {
                let found = cache.get(&id, |bytes| data(u64::from(round)).is(bytes));
                assert!(found.is_ok_and(|whole| whole), "round {round}: handle {n} does not find {id:?}");
            }
        }
    }
    other.finish();
}

#[test]
fn a_new_directory_is_not_taken_for_a_removed_one() {
    let scratch = Scratch::new("inode");
    let mut removed = HashSet::new();
    let mut kept = Vec::new();
    let mut reused = 0;
    for n in 0..20_u32 {
        // A few more, until the file system gives out an inode that it has seen before.
        let mut made = (0..64).map(|m| -> PathBuf { scratch.join(&format!("store-{n}-{m}")) }).map(|path| {
            fs::create_dir(&path).expect("a directory");
            set_mode(&path, 0o700);
            let inode = fs::metadata(&path).expect("a directory").ino();
            (path, inode)
        });
        let (path, inode) = made.find(|(_, inode)| removed.contains(inode) || n == 0).unwrap_or_else(|| {
            let path = scratch.join(&format!("store-{n}-0"));
            let inode = fs::metadata(&path).expect("a directory").ino();
            (path, inode)
        });
        reused += u32::from(removed.contains(&inode));
        // Other options than those of the removed ones, whose handles are still there. They have nothing open: a file that is
        // keeps the inode of its directory.
        let cache = open(&path, &format!("capacity=1MiB deadline={}ms", 500 + n)).expect("a store that opens");
        if n == 19 {
            cache.put(b"id", &data(1).bytes(), now() + 600).expect("a record that is stored");
            let found = cache.get(b"id", |bytes| data(1).is(bytes));
            assert!(found.is_ok_and(|whole| whole), "a removed store answers");
        }
        kept.push(cache);
        removed.insert(inode);
        fs::remove_dir_all(path).expect("remove the store");
    }
    if reused == 0 {
        support::not_tried("a directory with the inode of a removed one", "this file system gives none out again");
    }
}
