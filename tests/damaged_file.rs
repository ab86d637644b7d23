//! A file that is damaged ends the process that opens it. What passes the check must not, and what the library wrote must
//! pass the check.

#[path = "../src/store/check.rs"]
#[allow(dead_code)] // a part of it is for the library alone
mod check;
#[path = "support/damage.rs"]
mod damage;
#[path = "support/store.rs"]
mod store;

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use damage::{Recipe, KINDS, RECIPES};
use store::{Random, Scratch, Worker};

/// Damages tried, unless SESSCACHE_MUTATIONS says how many.
const MUTATIONS: usize = 420;
/// A process that is still busy after this hangs.
const HANG: Duration = Duration::from_secs(5);

store::workers!(work);

fn work(role: &str, arguments: &[String]) {
    match role {
        "fill" => {
            let at: usize = arguments[1].parse().expect("a number");
            damage::make(&RECIPES[at], at as u64, Path::new(&arguments[0]), |_| {});
        }
        "use" => {
            let held = damage::records(Path::new(&arguments[1]));
            let cache = store::open(Path::new(&arguments[0]), "deadline=1s");
            let (found, bad) = damage::use_store(&cache, &held, arguments[2].parse().expect("a seed"));
            println!("{found} {bad}");
        }
        _ => store::serve(),
    }
}

fn capacity(recipe: &Recipe) -> u64 {
    let mib = recipe.options.split(['=', 'M']).nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a capacity");
    mib << 20
}

/// Fills a store in a process of its own, so that nothing of it is open afterwards.
fn filled(scratch: &Scratch, recipe: &'static Recipe) -> PathBuf {
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
    store::set_mode(to, 0o700);
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
fn use_in_child(path: &Path, records: &Path, seed: u64) -> End {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args([text(path), text(records), &seed.to_string()]).env("SESSCACHE_TEST_ROLE", "use");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a child");
    let end = Instant::now() + HANG;
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

/// What became of the damage of one kind.
#[derive(Clone, Copy, Default)]
struct Row {
    tried: usize,
    refused: usize,
    deaths_when_refused: usize,
    deaths_when_passed: usize,
    wrong: usize,
}

#[test]
fn damage_that_passes_the_check_ends_a_process() {
    let scratch = Scratch::new("damage");
    let wanted = std::env::var("SESSCACHE_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTATIONS);
    let seed = std::env::var("SESSCACHE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let whole: Vec<PathBuf> = std::thread::scope(|scope| {
        let fill: Vec<_> = RECIPES.iter().map(|recipe| scope.spawn(|| filled(&scratch, recipe))).collect();
        fill.into_iter().map(|filled| filled.join().expect("a store")).collect()
    });
    let next = AtomicUsize::new(0);
    let rows = Mutex::new([Row::default(); KINDS.len()]);
    let gaps = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            let (scratch, whole, next, rows, gaps) = (&scratch, &whole, &next, &rows, &gaps);
            scope.spawn(move || loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= wanted {
                    break;
                }
                let mut random = Random(seed << 32 | n as u64);
                let kind = KINDS[n % KINDS.len()];
                let at = random.below(RECIPES.len() as u64) as usize;
                let map = capacity(&RECIPES[at]);
                let path = scratch.join(&format!("copy-{thread}"));
                copy(&whole[at], &path);
                let data = damage::generation(&path).join("data.mdb");
                let mut bytes = fs::read(&data).expect("a data file");
                let (found, live) = damage::look(&data, map);
                let lists = 2 + found.expect("a whole store").list as usize;
                damage::damage(&mut bytes, kind, &mut random, &live, lists);
                fs::write(&data, &bytes).expect("a data file");
                let (verdict, _) = damage::look(&data, map);
                let end = use_in_child(&path, &whole[at], n as u64);
                let mut rows = rows.lock().expect("rows");
                let row = &mut rows[n % KINDS.len()];
                row.tried += 1;
                row.refused += usize::from(verdict.is_err());
                match verdict {
                    Err(_) => row.deaths_when_refused += usize::from(end.is_death()),
                    Ok(_) => row.deaths_when_passed += usize::from(end.is_death()),
                }
                if let End::Well(_, bad) = end {
                    row.wrong += usize::from(bad > 0);
                }
                if verdict.is_ok() && (end.is_death() || matches!(end, End::Well(_, 1..))) {
                    let name = format!("gap-{n}.mdb");
                    if let Some(keep) = std::env::var_os("SESSCACHE_KEEP") {
                        let _ = fs::write(Path::new(&keep).join(&name), &bytes);
                    }
                    gaps.lock().expect("gaps").push(format!("{n} {kind:?} '{}' {end:?}", RECIPES[at].name));
                }
            });
        }
    });
    println!("{:<12}{:>8}{:>9}{:>17}{:>16}{:>7}", "damage", "tried", "refused", "refused, deadly", "passed, deadly", "wrong");
    let rows = rows.into_inner().expect("rows");
    let mut all = Row::default();
    let print = |name: &str, row: &Row| {
        let Row { tried, refused, deaths_when_refused, deaths_when_passed, wrong } = row;
        println!("{name:<12}{tried:>8}{refused:>9}{deaths_when_refused:>17}{deaths_when_passed:>16}{wrong:>7}");
    };
    for (kind, row) in KINDS.iter().zip(&rows) {
        print(&format!("{kind:?}"), row);
        all.tried += row.tried;
        all.refused += row.refused;
        all.deaths_when_refused += row.deaths_when_refused;
        all.deaths_when_passed += row.deaths_when_passed;
        all.wrong += row.wrong;
    }
    print("all", &all);
    let gaps = gaps.into_inner().expect("gaps");
    assert!(gaps.is_empty(), "damage that passes the check ends a process:\n{}", gaps.join("\n"));
}

#[test]
fn a_whole_store_is_called_damaged() {
    let scratch = Scratch::new("whole");
    for recipe in RECIPES {
        let path = scratch.join(recipe.name);
        let mut last = None;
        damage::make(recipe, 1, &path, |when| {
            if !path.exists() || when == "empty" {
                return;
            }
            let data = damage::generation(&path).join("data.mdb");
            let (found, _) = damage::look(&data, capacity(recipe));
            let found = found.unwrap_or_else(|e| panic!("a store '{}' that is {when} is called damaged: {e}", recipe.name));
            let len = std::fs::metadata(&data).unwrap().len();
            if len < (found.last_page + 1) * 4096 { eprintln!("{} {when}: short by {}", recipe.name, (found.last_page+1) as i64 - (len/4096) as i64); }
            if found.lost > 0 { eprintln!("{} {when}: lost {}", recipe.name, found.lost); }
            last = Some(found);
        });
        eprintln!("{}: {last:?}", recipe.name);
    }
}
