//! There is no room: the file system is full, or a limit of the process forbids. Writing through a map then is SIGBUS, writing
//! behind a limit SIGXFSZ, and both end a server. It must go on without a cache, and have it back when there is room again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sesscache::{Cache, Options};
use support::{now, Data, Random, Scratch, Worker};

support::roles!(work: "every room", "room goes and comes", "file size", "limit", "never mapped");

fn work(role: &str, arguments: &[String]) {
    let place = Path::new(&arguments[0]);
    match role {
        "every room" => every_room(place, &arguments[1]),
        "room goes and comes" => room_goes_and_comes(place, &arguments[1]),
        "file size" => file_size(place, &arguments[1]),
        "limit" => limit(place, &arguments[1]),
        "never mapped" => never_mapped(place),
        other => panic!("no such role: {other}"),
    }
}

/// A process in a mount namespace of its own that has a tmpfs of this size. Everything goes with it.
fn on_tmpfs(role: &str, size: &str, options: &str) {
    let scratch = Scratch::new("room");
    let place = scratch.join("tmpfs");
    fs::create_dir(&place).expect("a directory");
    let Some(mut command) = support::in_namespaces("a full file system", &["-m"]) else { return };
    command.args(["sh", "-ec", &format!("mount -t tmpfs -o mode=700,size={size} none \"$2\"; exec \"$@\""), "sh"]);
    let place = place.to_str().expect("a path in UTF-8");
    // $1 is this program, $2 its first argument.
    command.arg(std::env::current_exe().expect("the path of this program")).args([place, options]);
    Worker::run_as(role, command).finish();
}

fn put(cache: &Cache, seed: u64) -> bool {
    cache.put(&Random(seed).id(32), &Data { len: 400, seed }.bytes(), now() + 600).is_ok()
}

/// True when it is there; another record is a failure.
fn has(cache: &Cache, seed: u64) -> bool {
    let data = Data { len: 400, seed };
    cache.get(&Random(seed).id(32), |bytes| assert!(data.is(bytes), "another record is returned")).is_ok()
}

fn open(path: &Path, options: &str) -> sesscache::Result<Cache> {
    Cache::open(path, &Options::parse(options).expect("options that are acceptable"))
}

/// Waits until a put is done; the pauses after a failure are a second long.
fn comes_back(cache: &Cache, seed: u64) -> bool {
    let since = Instant::now();
    while since.elapsed() < support::patience(Duration::from_secs(20)) {
        if put(cache, seed) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn leftovers(path: &Path) -> Vec<PathBuf> {
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| ["new-", "control.", "key."].iter().any(|begin| name(path).starts_with(begin))).collect()
}

/// Fills the file system but for so many KiB.
fn leave(place: &Path, kib: usize) {
    let mut ballast = fs::File::create(place.join("ballast")).expect("a file");
    let _ = fs::remove_file(place.join("hole"));
    fs::write(place.join("hole"), vec![1; kib << 10]).expect("room for the hole");
    while ballast.write(&[1; 4_096]).is_ok_and(|n| n > 0) {}
    fs::remove_file(place.join("hole")).expect("the hole");
}

/// Whatever room is left, at each file that is made: an error or a store, and nothing half made.
fn every_room(place: &Path, options: &str) {
    let rooms: [usize; 10] = [0, 32, 36, 40, 172, 176, 180, 240, 1_180, 1_500];
    let (mut without, mut with) = (0, 0);
    for kib in rooms {
        let path = place.join(format!("store-{kib}"));
        leave(place, kib);
        let cache = open(&path, options);
        let mut stored = 0;
        if let Ok(cache) = &cache {
            stored = (0..300).filter(|seed| put(cache, *seed)).count();
            (0..300).for_each(|seed| _ = has(cache, seed));
            assert!(!put(cache, 300) || has(cache, 300), "{kib} KiB: a record that was stored is not found");
        }
        assert!(leftovers(&path).is_empty(), "{kib} KiB: files stay behind: {:?}", leftovers(&path));
        *(if stored > 0 { &mut with } else { &mut without }) += 1;
        fs::remove_file(place.join("ballast")).expect("the ballast");
        let cache = match cache {
            Ok(cache) => cache,
            Err(_) => open(&path, options).expect("a store, when there is room"),
        };
        assert!(comes_back(&cache, 1_000), "{kib} KiB: the cache does not come back with the room");
        assert!(has(&cache, 1_000), "{kib} KiB: what is stored when there is room again is not found");
        drop(cache);
        fs::remove_dir_all(&path).expect("the store");
    }
    assert!(without > 3 && with > 0, "{without} without a cache, {with} with one: this shows nothing");
}

/// Full while servers store: older sessions make room. With room again the store grows.
fn room_goes_and_comes(place: &Path, options: &str) {
    let cache = open(&place.join("store"), options).expect("a store");
    assert!(put(&cache, 0));
    leave(place, 0);
    let stored = (1..6_000).filter(|seed| put(&cache, *seed)).count();
    let _ = (0..6_000).filter(|seed| has(&cache, *seed)).count();
    fs::remove_file(place.join("ballast")).expect("the ballast");
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(comes_back(&cache, 10_000), "{options}: after {stored} puts the cache does not come back with the room");
    let stored = (10_000..14_000).filter(|seed| put(&cache, *seed)).count();
    let kept = (10_000..14_000).filter(|seed| has(&cache, *seed)).count();
    assert!(stored == 4_000 && kept > 3_900, "{options}: {stored} stored and {kept} found when there is room again");
}

#[test]
fn a_server_outlives_a_file_system_that_is_full_at_any_file() {
    on_tmpfs("every room", "6m", "capacity=1MiB");
    on_tmpfs("every room", "6m", "capacity=1MiB guard=on");
}

#[test]
fn a_server_outlives_a_file_system_that_gets_full_and_the_cache_returns() {
    on_tmpfs("room goes and comes", "12m", "capacity=8MiB");
    on_tmpfs("room goes and comes", "12m", "capacity=8MiB guard=on");
}

fn set_limit(resource: libc::__rlimit_resource_t, to: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct it is given.
    unsafe { libc::getrlimit(resource, &mut limit) };
    limit.rlim_cur = to.min(limit.rlim_max);
    // SAFETY: setrlimit reads the struct it is given.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "{}", std::io::Error::last_os_error());
}

/// RLIMIT_FSIZE, of every size, from the start and while the store is open.
fn file_size(place: &Path, options: &str) {
    for bytes in [0, 16, 1_000, 4_096, 20_000, 100_000, 140_000, 500_000, 1 << 20, 2 << 20, 20 << 20] {
        let path = place.join(format!("store-{bytes}"));
        set_limit(libc::RLIMIT_FSIZE, bytes);
        let cache = open(&path, options);
        if let Ok(cache) = &cache {
            (0..2_000).for_each(|seed| _ = put(cache, seed));
        }
        assert!(leftovers(&path).is_empty(), "{bytes} bytes: files stay behind: {:?}", leftovers(&path));
        set_limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
        let cache = cache.or_else(|_| open(&path, options)).expect("a store, without a limit");
        assert!(comes_back(&cache, 5_000) && has(&cache, 5_000), "{bytes} bytes: the cache does not come back");
        set_limit(libc::RLIMIT_FSIZE, bytes);
        (0..8_000).for_each(|seed| _ = put(&cache, seed));
        set_limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
        assert!(comes_back(&cache, 9_000) && has(&cache, 9_000), "{bytes} bytes, set later: it does not come back");
    }
}

/// Descriptors and mappings of this process, as the kernel counts them.
fn held() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
    let ours = maps.lines().filter(|line| line.contains("/store")).count();
    (fs::read_dir("/proc/self/fd").expect("the descriptors").count(), ours)
}

/// A limit that lets the store not be opened: an error each time, and nothing is left open.
fn limit(place: &Path, which: &str) {
    let cache = open(
        &place.join("store"),
        if which.starts_with("RLIMIT_MEMLOCK") { "capacity=64MiB owner=65534" } else { "capacity=64MiB" },
    )
    .expect("a store");
    let before = held();
    let (resource, tight) = match which {
        "RLIMIT_AS" => {
            let pages = fs::read_to_string("/proc/self/statm").expect("the size");
            let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            (libc::RLIMIT_AS, pages * 4_096 + (8 << 20))
        }
        "RLIMIT_NOFILE" => (libc::RLIMIT_NOFILE, before.0 as u64),
        // More than the control page and the gate, and too little for the map.
        "RLIMIT_MEMLOCK" => (libc::RLIMIT_MEMLOCK, 64 << 20),
        _ => (libc::RLIMIT_MEMLOCK, 8 << 10),
    };
    if resource == libc::RLIMIT_MEMLOCK {
        set_limit(resource, tight);
        // SAFETY: setresuid changes this process alone; without root's rights the limit holds.
        assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
        // SAFETY: mlockall concerns this process alone.
        let code = unsafe { libc::mlockall(libc::MCL_FUTURE) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    } else {
        set_limit(resource, tight);
    }
    if resource == libc::RLIMIT_MEMLOCK {
        let error = cache.each(|_, _, _| true).expect_err("the store opens all the same, so this shows nothing");
        assert_eq!(error.status, sesscache::Status::System, "{error}");
        let says_what_to_do = error.to_string().contains("RLIMIT_MEMLOCK") && error.to_string().contains("raise");
        assert!(says_what_to_do, "the message names neither the limit nor what to do: {error}");
    }
    for seed in 0..3 {
        assert!(!put(&cache, seed), "{which}: the store opens all the same, so this shows nothing");
        assert!(!has(&cache, seed));
        std::thread::sleep(Duration::from_millis(1_010));
    }
    set_limit(libc::RLIMIT_NOFILE, 1_024);
    if resource == libc::RLIMIT_MEMLOCK {
        // SAFETY: munlockall concerns this process alone.
        unsafe { libc::munlockall() };
    }
    set_limit(resource, if resource == libc::RLIMIT_NOFILE { 1_024 } else { libc::RLIM_INFINITY });
    assert_eq!(held(), before, "{which}: an attempt in vain leaves descriptors or mappings behind");
    assert!(comes_back(&cache, 10) && has(&cache, 10), "{which}: the cache does not come back");
}

#[test]
fn a_server_outlives_a_limit_on_the_size_of_files() {
    for options in ["capacity=4MiB", "capacity=16MiB", "capacity=4MiB guard=on"] {
        let scratch = Scratch::new("fsize");
        Worker::start("file size", &[scratch.join("").to_str().expect("a path"), options]).finish();
    }
}

/// RLIMIT_AS, below the size of the store and below what is left beside the process.
fn never_mapped(place: &Path) {
    let pages = fs::read_to_string("/proc/self/statm").expect("the size");
    let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    let mapped = pages * 4_096;
    for limit in [mapped + (300 << 20), mapped + (200 << 20)] {
        set_limit(libc::RLIMIT_AS, limit);
        for (options, fits) in [("capacity=512MiB", false), ("capacity=250MiB", limit - mapped > 250 << 20), ("", true)]
        {
            let store = place.join(format!("store-{limit}-{}", options.len()));
            match open(&store, options) {
                Ok(_) => assert!(fits, "{options} with {limit} bytes is opened"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!fits && error.status == sesscache::Status::System, "{options}: {text}");
                    let helps = ["RLIMIT_AS", "ulimit -v", "capacity="].iter().all(|word| text.contains(word));
                    assert!(helps, "the message names neither the limit nor what to do: {text}");
                }
            }
        }
    }
}

#[test]
fn a_store_that_the_process_could_never_map_is_refused_with_a_remedy() {
    let scratch = Scratch::new("never-mapped");
    Worker::start("never mapped", &[support::text(scratch.path())]).finish();
}

#[test]
fn a_server_outlives_a_limit_on_memory_or_descriptors_and_leaks_nothing() {
    for which in ["RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_MEMLOCK of two pages"] {
        let scratch = Scratch::new("limit");
        support::set_mode(&scratch.join(""), 0o711);
        let place = scratch.join("place");
        fs::create_dir(&place).expect("a directory");
        support::set_mode(&place, 0o711);
        Worker::start("limit", &[place.to_str().expect("a path"), which]).finish();
    }
}
