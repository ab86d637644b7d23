//! A quota is used up. It is a full disk that leaves room for others: EDQUOT in place of ENOSPC, from any system call that
//! makes or lengthens a file. Where the file system has to find a new block for a page that is written again, it is a SIGBUS
//! in whoever writes to shared memory, and nothing that a library can do.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sesscache::{Cache, Options, Status};
use support::{now, Data, Random, Scratch, Worker};

support::roles!(work: "small quota", "refused calls", "raw", "refused place");

fn work(role: &str, arguments: &[String]) {
    let place = Path::new(&arguments[0]);
    match role {
        "small quota" => small_quota(place, &arguments[1]),
        "refused calls" => refused_calls(place, &arguments[1]),
        "raw" => raw(place),
        "refused place" => refused_place(place, &arguments[1]),
        other => panic!("no such role: {other}"),
    }
}

const BOTH: [&str; 2] = ["capacity=1MiB", "capacity=1MiB guard=on"];

fn open(path: &Path, options: &str) -> sesscache::Result<Cache> {
    Cache::open(path, &Options::parse(options).expect("options that are acceptable"))
}

fn put(cache: &Cache, seed: u64) -> bool {
    let put = cache.put(&Random(seed).id(32), &Data { len: 400, seed }.bytes(), now() + 600);
    let known = [Status::Full, Status::System, Status::Busy];
    put.map_err(|error| assert!(known.contains(&error.status), "{error}")).is_ok()
}

/// True when it is there; another record is a failure.
fn has(cache: &Cache, seed: u64) -> bool {
    let data = Data { len: 400, seed };
    cache.get(&Random(seed).id(32), |bytes| assert!(data.is(bytes), "another record is returned")).is_ok()
}

fn comes_back(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + support::patience(Duration::from_secs(20));
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// Opens and puts while system calls say EDQUOT, and until they do so no longer.
fn refused_calls(place: &Path, options: &str) {
    let mut cache = None;
    let opened = comes_back(|| match open(&place.join("store"), options) {
        Ok(opened) => cache.insert(opened).path().exists(),
        Err(error) => {
            assert_eq!(error.status, Status::Full, "a used up quota is called something else: {error}");
            assert!(error.to_string().contains("uota"), "the message does not name the quota: {error}");
            false
        }
    });
    let cache = cache.filter(|_| opened).expect("a cache, when there is room again");
    (0..300).for_each(|seed| _ = put(&cache, seed) && has(&cache, seed));
    let _ = cache.flush();
    (0..300).for_each(|seed| _ = put(&cache, seed));
    (0..300).for_each(|seed| _ = has(&cache, seed));
    assert!(comes_back(|| put(&cache, 1_000) && has(&cache, 1_000)), "the cache does not come back with the room");
    let entries = fs::read_dir(place.join("store")).expect("the store").flatten().map(|entry| entry.file_name());
    let left: Vec<_> = entries
        .filter(|name| ["new-", "control.", "key."].iter().any(|begin| name.to_string_lossy().starts_with(begin)))
        .collect();
    assert!(left.is_empty(), "files stay behind: {left:?}");
}

/// The system calls that may say EDQUOT.
const CALLS: [&str; 8] = [
    "mkdir,mkdirat",
    "openat",
    "write",
    "pwrite64",
    "fallocate",
    "ftruncate",
    "link,linkat",
    "rename,renameat,renameat2",
];
/// So many of them do, one after the other: the pauses after a failure are a second long.
const REFUSED: u64 = 4;

fn under_strace(log: &Path, call: &str, inject: Option<String>) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).args(["-e", &format!("trace={call}")]);
    if let Some(inject) = inject {
        command.args(["-e", &inject]);
    }
    command.arg(std::env::current_exe().expect("the path of this program"));
    command
}

fn calls(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).expect("what strace saw");
    text.lines().filter(|line| line.contains('(')).map(str::to_owned).collect()
}

/// Lets the calls of a kind fail, the first that the process makes of its own and those behind it, or later ones. How many it
/// were, over all.
fn with_refused_calls(call: &str, options: &str) -> usize {
    let scratch = Scratch::new("refused");
    let log = scratch.join("calls");
    // What a process does before it comes to the store.
    let mut nothing = under_strace(&log, call, None);
    nothing.arg("nothing");
    Worker::run_as("serve", nothing).finish();
    let before = calls(&log).len() as u64;
    let mut refused = 0;
    for n in [1, 2, 4].into_iter().chain(5..support::tries(5, 20)) {
        let (first, last) = (before + n, before + n + REFUSED - 1);
        let mut command = under_strace(&log, call, Some(format!("inject={call}:error=EDQUOT:when={first}..{last}")));
        let place = scratch.join(&n.to_string());
        fs::create_dir(&place).expect("a directory");
        command.arg(&place).arg(options);
        Worker::run_as("refused calls", command).finish();
        refused += calls(&log).iter().filter(|line| line.contains("INJECTED")).count();
    }
    println!("{call}, {options}: {refused} refused");
    refused
}

#[test]
fn a_server_outlives_any_system_call_that_says_quota_exceeded() {
    std::thread::scope(|scope| {
        for call in CALLS {
            scope.spawn(move || {
                let refused: usize = BOTH.iter().map(|options| with_refused_calls(call, options)).sum();
                assert!(refused > 0, "{call}: nothing calls it, so this shows nothing");
            });
        }
    });
}

/// Runs this program in a mount namespace of its own in which `script` has mounted a file system at $2; false when that
/// cannot be done here, with the reason.
fn mounted(name: &str, script: &str, role: &str, arguments: &[&str]) {
    let scratch = Scratch::new("quota");
    support::set_mode(&scratch.join(""), 0o755);
    let place = scratch.join("place");
    fs::create_dir(&place).expect("a directory");
    let shell = |end: &str| {
        let mut command = support::in_namespaces(name, &["-m"])?;
        command.args(["sh", "-ec", &format!("{script}; {end}"), "sh"]);
        command.arg(std::env::current_exe().expect("the path of this program")).arg(&place);
        Some(command)
    };
    let Some(mut trial) = shell("true") else { return };
    let tried = trial.output().expect("a shell");
    if !tried.status.success() {
        let reason = String::from_utf8_lossy(&tried.stderr);
        return support::not_tried(name, reason.lines().next().unwrap_or("it cannot be mounted here"));
    }
    let Some(mut command) = shell("exec \"$@\"") else { return };
    command.args(arguments);
    Worker::run_as(role, command).finish();
}

/// A file system where this user has 6 MiB, most of which is taken away and given back.
fn small_quota(place: &Path, options: &str) {
    // SAFETY: setresuid changes this process alone; root has no quota.
    assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
    for room in [0, 40, 200, 1_500] {
        let (path, ballast, hole) = (place.join(format!("store-{room}")), place.join("ballast"), place.join("hole"));
        let fill = || {
            fs::write(&hole, vec![1; room << 10]).expect("room for the hole");
            let mut file = fs::File::create(&ballast).expect("a file");
            let refused = std::iter::repeat_with(|| file.write(&[1; 4_096])).find_map(Result::err).expect("an end");
            assert_eq!(refused.raw_os_error(), Some(libc::EDQUOT), "this is no quota, so this shows nothing");
            fs::remove_file(&hole).expect("the hole");
        };
        fill();
        let cache = open(&path, options);
        if let Ok(cache) = &cache {
            (0..300).for_each(|seed| _ = put(cache, seed) && has(cache, seed));
        }
        fs::remove_file(&ballast).expect("the ballast");
        let cache = cache.or_else(|_| open(&path, options)).expect("a store, when there is room");
        assert!(comes_back(|| put(&cache, 1_000) && has(&cache, 1_000)), "the cache does not come back with the room");
        fill();
        (0..6_000).for_each(|seed| _ = put(&cache, seed));
        fs::remove_file(&ballast).expect("the ballast");
        assert!(comes_back(|| put(&cache, 9_000) && has(&cache, 9_000)), "the cache does not come back with the room");
        drop(cache);
        fs::remove_dir_all(&path).expect("the store");
    }
}

#[test]
fn a_server_outlives_a_quota_that_is_used_up() {
    // Linux 6.6 with CONFIG_TMPFS_QUOTA.
    let script = "mount -t tmpfs -o mode=777,usrquota,usrquota_block_hardlimit=6m none \"$2\"";
    for options in BOTH {
        mounted("tmpfs with a quota", script, "small quota", &[options]);
    }
}

const BTRFS: &str =
    "truncate -s 128M \"$2.image\"; mkfs.btrfs -q -f \"$2.image\" >/dev/null; mount -o loop \"$2.image\" \"$2\";\
    btrfs quota enable \"$2\"; btrfs subvolume create \"$2/limited\" >/dev/null; btrfs qgroup limit 4M \"$2/limited\"";
const OVERLAY: &str = "mkdir -p \"$2.lower\" \"$2/limited/upper\" \"$2/limited/work\" \"$2/limited/over\";\
    mount -t overlay -o lowerdir=\"$2.lower\",upperdir=\"$2/limited/upper\",workdir=\"$2/limited/work\" none \"$2/limited/over\"";

/// What a store does with its page of counters, on a file of its own: writes to it, after it was written to the disk.
fn raw(place: &Path) {
    let path = place.join("page");
    fs::write(&path, [0; 4_096]).expect("a page");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a page");
    file.sync_all().expect("a page on the disk");
    let mut ballast = fs::File::create(place.join("ballast")).expect("a file");
    let refused = std::iter::repeat_with(|| ballast.write(&[1; 4_096])).find_map(Result::err).expect("an end");
    assert_eq!(refused.raw_os_error(), Some(libc::EDQUOT));
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4_096, protection, libc::MAP_SHARED, fd, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the mapping is 4096 bytes long and nobody else's.
    unsafe { page.cast::<u8>().write_volatile(1) };
}

/// The place is one that ends processes, and the library says so before it maps anything there.
fn refused_place(place: &Path, below: &str) {
    let place = place.join(below);
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.arg(&place).env("SESSCACHE_TEST_ROLE", "raw");
    let ended = command.status().expect("a process that ends");
    assert_eq!(ended.signal(), Some(libc::SIGBUS), "shared memory is harmless here, so this shows nothing: {ended}");
    fs::remove_file(place.join("ballast")).expect("the ballast");
    for options in BOTH {
        let error = open(&place.join("store"), options).map(drop).expect_err("a place where servers die is accepted");
        assert_eq!(error.status, Status::Invalid, "{error}");
        assert!(error.to_string().contains("copy on write") || error.to_string().contains("btrfs"), "{error}");
        assert!(error.to_string().contains("tmpfs"), "the message does not say what to do: {error}");
        assert_eq!(fs::read_dir(place.join("store")).map_or(0, Iterator::count), 0, "files stay behind");
    }
}

#[test]
fn a_directory_on_btrfs_is_refused() {
    mounted("btrfs with a quota", BTRFS, "refused place", &["limited"]);
    mounted("an overlay on btrfs", &format!("{BTRFS}; {OVERLAY}"), "refused place", &["limited/over"]);
}
