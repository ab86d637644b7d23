//! LMDB believes its pages: it ends the process that opens a damaged file. Here files of all kinds are damaged in all ways,
//! and processes use them as a server would.
//!
//! `SESSCACHE_MUTATIONS=10000 cargo test --test faults -- --nocapture damaged_file` tries more of them and shows a table;
//! `SESSCACHE_SEED` gives other ones.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::damage::{KINDS, RECIPES};
use support::{Random, Scratch, Worker};

/// Damages tried, unless SESSCACHE_MUTATIONS says how many.
const MUTATIONS: usize = 140;
/// A process that is still busy after this hangs: with the check left out, and as it is, when a busy machine must not count.
const HANG: Duration = Duration::from_secs(2);
const HANG_CHECKED: Duration = Duration::from_secs(30);

support::roles!(work: "fill", "use");

fn work(role: &str, arguments: &[String]) {
    match role {
        "fill" => {
            let at: usize = arguments[1].parse().expect("a number");
            support::damage::make(&RECIPES[at], at as u64, Path::new(&arguments[0]), |_| {});
        }
        "use" => {
            let held = support::damage::records(Path::new(&arguments[1]));
            let cache = support::open(Path::new(&arguments[0]), "deadline=1s");
            let (found, bad) = support::damage::use_store(&cache, &held, arguments[2].parse().expect("a seed"));
            println!("{found} {bad}");
        }
        other => panic!("no such role: {other}"),
    }
}

/// Fills a store in a process of its own, so that nothing of it is open afterwards.
fn filled(scratch: &Scratch, recipe: &'static support::damage::Recipe) -> PathBuf {
    let path = scratch.join(recipe.name);
    let at = RECIPES.iter().position(|other| other.name == recipe.name).expect("a recipe");
    Worker::start("fill", &[text(&path), &at.to_string()]).finish();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("a directory");
    support::set_mode(to, 0o700);
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

/// How a process ended that used a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Records found, and how many of them were not what was stored.
    Well(usize, usize),
    Signal(i32),
    Exit(i32),
    Hang,
}

impl End {
    fn is_death(self) -> bool {
        !matches!(self, End::Well(..))
    }
}

/// Uses a store in a process of its own.
fn use_in_child(path: &Path, records: &Path, seed: u64, patience: Duration) -> End {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args([text(path), text(records), &seed.to_string()]).env("SESSCACHE_TEST_ROLE", "use");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a child");
    let end = Instant::now() + support::patience(patience);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return End::Hang;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if let Some(signal) = status.signal() {
        return End::Signal(signal);
    }
    let mut answer = String::new();
    let _ = child.stdout.take().expect("a pipe").read_to_string(&mut answer);
    let numbers: Vec<usize> = answer.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match (status.code(), &numbers[..]) {
        (Some(0), [found, bad]) => End::Well(*found, *bad),
        (code, _) => End::Exit(code.unwrap_or(-1)),
    }
}

/// Makes everybody else believe that the store is open, for as long as the result lives: so nobody checks it.
fn keep_in_use(path: &Path) -> fs::File {
    let lock = support::damage::generation(path).join("lock.mdb");
    let file = fs::OpenOptions::new().read(true).write(true).open(lock).expect("a lock file");
    // SAFETY: all-zero is a valid flock.
    let mut shared: libc::flock = unsafe { std::mem::zeroed() };
    shared.l_type = libc::F_RDLCK as libc::c_short;
    shared.l_len = 1;
    // SAFETY: F_SETLK reads the struct it is given.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &shared) };
    assert_eq!(code, 0, "the lock file cannot be locked: {}", std::io::Error::last_os_error());
    file
}

/// What became of the damage of one kind.
#[derive(Clone, Copy, Default)]
struct Row {
    tried: usize,
    refused: usize,
    /// Ends of processes with the check left out, where it refuses.
    deadly: usize,
    /// Ends of processes as they are.
    deaths: usize,
    /// Records with other bytes than were stored.
    wrong: usize,
}

impl Row {
    fn print(&self, name: &str) {
        let Row { tried, refused, deadly, deaths, wrong } = self;
        println!("{name:<12}{tried:>8}{refused:>9}{deadly:>22}{deaths:>8}{wrong:>7}");
    }
}

/// Damages a copy of a store and uses it; says what is wrong with that, if anything is.
fn try_one(n: usize, seed: u64, whole: &[PathBuf], path: &Path, row: &mut Row) -> Option<String> {
    let mut random = Random(seed << 32 | n as u64);
    let kind = KINDS[n % KINDS.len()];
    let at = random.below(RECIPES.len() as u64) as usize;
    let map = RECIPES[at].capacity();
    copy(&whole[at], path);
    let data = support::damage::generation(path).join("data.mdb");
    let mut bytes = fs::read(&data).expect("a data file");
    let (found, live) = support::damage::look(&data, map);
    let lists = 2 + found.expect("a whole store").list as usize;
    support::damage::damage(&mut bytes, kind, &mut random, &live, lists);
    fs::write(&data, &bytes).expect("a data file");
    let refused = support::damage::look(&data, map).0.is_err();
    row.tried += 1;
    row.refused += usize::from(refused);
    if refused {
        let in_use = keep_in_use(path);
        row.deadly += usize::from(use_in_child(path, &whole[at], n as u64, HANG).is_death());
        drop(in_use);
        copy(&whole[at], path);
        fs::write(&data, &bytes).expect("a data file");
    }
    let end = use_in_child(path, &whole[at], n as u64, HANG_CHECKED);
    row.deaths += usize::from(end.is_death());
    row.wrong += usize::from(matches!(end, End::Well(_, 1..)));
    let name = RECIPES[at].name;
    (end.is_death() || matches!(end, End::Well(_, 1..)))
        .then(|| format!("{n}: {kind:?} in '{name}', which is {}: {end:?}", if refused { "refused" } else { "passed" }))
}

#[test]
fn a_damaged_file_ends_no_process_that_opens_it() {
    let scratch = Scratch::new("damage");
    let wanted = std::env::var("SESSCACHE_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTATIONS);
    let seed = std::env::var("SESSCACHE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let whole: Vec<PathBuf> = std::thread::scope(|scope| {
        let fill: Vec<_> = RECIPES.iter().map(|recipe| scope.spawn(|| filled(&scratch, recipe))).collect();
        fill.into_iter().map(|filled| filled.join().expect("a store")).collect()
    });
    let next = AtomicUsize::new(0);
    let rows = Mutex::new([Row::default(); KINDS.len() + 1]);
    let gaps = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            let (scratch, whole, next, rows, gaps) = (&scratch, &whole, &next, &rows, &gaps);
            scope.spawn(move || loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= wanted {
                    break;
                }
                let mut row = Row::default();
                let gap = try_one(n, seed, whole, &scratch.join(&format!("copy-{thread}")), &mut row);
                let mut rows = rows.lock().expect("rows");
                for sum in [n % KINDS.len(), KINDS.len()] {
                    let sum = &mut rows[sum];
                    sum.tried += row.tried;
                    sum.refused += row.refused;
                    sum.deadly += row.deadly;
                    sum.deaths += row.deaths;
                    sum.wrong += row.wrong;
                }
                drop(rows);
                gaps.lock().expect("gaps").extend(gap);
            });
        }
    });
    println!(
        "{:<12}{:>8}{:>9}{:>22}{:>8}{:>7}",
        "damage", "tried", "refused", "deadly if not refused", "deaths", "wrong"
    );
    let rows = rows.into_inner().expect("rows");
    for (n, row) in rows.iter().enumerate() {
        row.print(&KINDS.get(n).map_or("all".to_owned(), |kind| format!("{kind:?}")));
    }
    let gaps = gaps.into_inner().expect("gaps");
    assert!(
        gaps.is_empty(),
        "a process ends, or gets what nobody stored, because its file is damaged:\n{}",
        gaps.join("\n")
    );
    let all = rows[KINDS.len()];
    assert!(all.deadly > 0, "no damage is deadly without the check, so this test shows nothing");
}
