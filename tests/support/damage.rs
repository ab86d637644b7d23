//! Stores of every kind that the library makes, and damage of every kind that a file may suffer.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sesscache::Cache;

use crate::check::{self, Damage, Expected, FileCounts};
use crate::{hex, now, open, unhex, Data, Random};

/// How a store is made.
pub struct Recipe {
    pub name: &'static str,
    pub options: &'static str,
    /// Lengths of records are drawn from these.
    pub lengths: &'static [usize],
    /// Puts; of all that was put, this share is then taken, removed or left to expire, in percent.
    pub puts: usize,
    pub gone: u64,
    /// The application's own ids, in percent.
    pub own: u64,
}

impl Recipe {
    /// Bytes.
    pub fn capacity(&self) -> u64 {
        let mib = self.options.split(['=', 'M']).nth(1).and_then(|n| n.parse::<u64>().ok());
        mib.expect("a capacity in MiB, first of all") << 20
    }
}

pub const RECIPES: &[Recipe] = &[
    Recipe { name: "small", options: "capacity=1MiB", lengths: &[224], puts: 300, gone: 0, own: 0 },
    Recipe { name: "full", options: "capacity=1MiB", lengths: &[224], puts: 5_000, gone: 10, own: 0 },
    Recipe { name: "deep", options: "capacity=2MiB", lengths: &[224, 100, 400], puts: 5_000, gone: 10, own: 30 },
    Recipe { name: "own ids", options: "capacity=1MiB", lengths: &[10, 224, 1_900], puts: 900, gone: 40, own: 100 },
    Recipe { name: "long", options: "capacity=2MiB", lengths: &[6_000, 2_500, 224], puts: 400, gone: 40, own: 20 },
    Recipe { name: "longest", options: "capacity=2MiB", lengths: &[65_536, 6_000], puts: 60, gone: 30, own: 20 },
    Recipe { name: "drained", options: "capacity=4MiB", lengths: &[3_900], puts: 900, gone: 97, own: 0 },
    Recipe { name: "drained, then filled", options: "capacity=8MiB", lengths: &[3_900], puts: 1_900, gone: 97, own: 2 },
    Recipe { name: "guarded", options: "capacity=1MiB guard=on", lengths: &[224], puts: 4_000, gone: 10, own: 10 },
    Recipe {
        name: "guarded, mixed",
        options: "capacity=2MiB guard=on",
        lengths: &[224, 6_000],
        puts: 500,
        gone: 60,
        own: 30,
    },
    Recipe {
        name: "guarded, drained",
        options: "capacity=4MiB guard=on",
        lengths: &[3_900],
        puts: 800,
        gone: 99,
        own: 0,
    },
];

/// Makes a store, looking at it from outside again and again. Leaves a list of what it holds in `records`.
pub fn make(recipe: &Recipe, seed: u64, path: &Path, mut look: impl FnMut(&str)) {
    let cache = open(path, &format!("deadline=1s {}", recipe.options));
    let mut random = Random(seed);
    let mut held: Vec<(Vec<u8>, Data)> = Vec::new();
    let put = |random: &mut Random, life: i64| {
        let id = match random.below(100) < recipe.own {
            true => {
                let len = [16, 32, 48, 255][random.below(4) as usize];
                random.id(len)
            }
            false => cache.issue_id(Duration::from_secs(life as u64)).expect("an id").to_vec(),
        };
        let len = recipe.lengths[random.below(recipe.lengths.len() as u64) as usize];
        let data = Data { len, seed: random.next() };
        let put = cache.put(&id, &data.bytes(), now() + life);
        put.unwrap_or_else(|error| panic!("'{}': a record is not stored: {error}", recipe.name));
        (id, data)
    };
    look("empty");
    for n in 0..recipe.puts {
        let life = if random.below(100) < recipe.gone / 3 { 1 } else { 5_000 + random.below(5_000) as i64 };
        held.push(put(&mut random, life));
        if n % (recipe.puts / 20 + 1) == 0 {
            look("being filled");
        }
    }
    look("filled");
    let mut n = 0;
    held.retain(|(id, _)| {
        if random.below(100) >= recipe.gone {
            return true;
        }
        let _ = if random.below(2) == 0 { cache.remove(id) } else { cache.take(id, |_| ()) };
        n += 1;
        if n % (recipe.puts / 20 + 1) == 0 {
            look("being emptied");
        }
        false
    });
    if recipe.gone > 0 {
        std::thread::sleep(Duration::from_millis(1_100));
        cache.sweep(usize::MAX).expect("a sweep");
    }
    look("emptied");
    for _ in 0..recipe.puts / 10 {
        held.push(put(&mut random, 6_000));
    }
    look("used again");
    let lines: Vec<String> = held.iter().map(|(id, data)| format!("{} {} {}", hex(id), data.len, data.seed)).collect();
    fs::write(path.with_extension("records"), lines.join("\n")).expect("the list of records");
}

/// The list that `make` has left.
pub fn records(path: &Path) -> Vec<(Vec<u8>, Data)> {
    let text = fs::read_to_string(path.with_extension("records")).expect("the list of records");
    let record = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        (unhex(words[0]), Data { len: number(1) as usize, seed: number(2) })
    };
    text.lines().map(record).collect()
}

/// Everything that a server does with its store; answers how many records were found, and how many of them were wrong.
pub fn use_store(cache: &Cache, held: &[(Vec<u8>, Data)], seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let (mut found, mut bad) = (0, 0);
    let mut visit = |known: &Data, bytes: &[u8]| {
        found += 1;
        bad += usize::from(!known.is(bytes));
    };
    for (id, data) in held {
        let _ = cache.get(id, |bytes| visit(data, bytes));
    }
    let _ = cache.each(|_, _, _| true);
    for _ in 0..300 {
        let (id, data) = &held[random.below(held.len() as u64) as usize];
        match random.below(8) {
            0 => drop(cache.take(id, |bytes| visit(data, bytes))),
            1 => drop(cache.remove(id)),
            2 => drop(cache.sweep(20)),
            3 => drop(cache.put(id, &data.bytes(), now() + 3_000)),
            n => {
                let issued = cache.issue_id(Duration::from_secs(4_000)).map(|id| id.to_vec());
                let id = if n == 4 { random.id(32) } else { issued.unwrap_or_default() };
                let len = [224, 224, 224, 2_500, 6_000, 65_536][random.below(6) as usize];
                drop(cache.put(&id, &Data { len, seed: random.next() }.bytes(), now() + 3_000));
            }
        }
    }
    (found, bad)
}

/// The files of the one generation of a store.
pub fn generation(path: &Path) -> PathBuf {
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).filter(|p| p.is_dir()).collect();
    all.sort();
    all.pop().unwrap_or_else(|| panic!("{} has no generation", path.display()))
}

/// What the checker says, and which pages it looked at: first those of the free list, then the tree.
pub fn look(data: &Path, map: u64) -> (Result<FileCounts, Damage>, Vec<u64>) {
    let file = fs::File::open(data).expect("a data file");
    let mut seen = Vec::new();
    let expected = Expected { page: PAGE, map };
    let found = check::check(expected, |number, out| {
        if seen.last() != Some(&number) {
            seen.push(number);
        }
        file.read_exact_at(out, number * PAGE as u64).is_ok()
    });
    (found, seen)
}

pub const PAGE: usize = 4096;

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MetaBit,
    HeaderBit,
    PointerBit,
    NodeBit,
    ListBit,
    AnyBit,
    Byte,
    Several,
    Zeroed,
    Swapped,
    Copied,
    Random,
    RandomBody,
    Truncated,
}

pub const KINDS: [Kind; 14] = [
    Kind::MetaBit,
    Kind::HeaderBit,
    Kind::PointerBit,
    Kind::NodeBit,
    Kind::ListBit,
    Kind::AnyBit,
    Kind::Byte,
    Kind::Several,
    Kind::Zeroed,
    Kind::Swapped,
    Kind::Copied,
    Kind::Random,
    Kind::RandomBody,
    Kind::Truncated,
];

/// Damages the bytes of a file. `live` are the pages in use, the first `lists` of them (and the metas) of the free list.
pub fn damage(bytes: &mut Vec<u8>, kind: Kind, random: &mut Random, live: &[u64], lists: usize) {
    let any = |random: &mut Random| live[random.below(live.len() as u64) as usize] as usize * PAGE;
    let flip = |bytes: &mut [u8], at: usize, random: &mut Random| bytes[at] ^= 1 << random.below(8);
    let u16_at = |bytes: &[u8], at: usize| usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
    let page = any(random);
    let entries = (u16_at(bytes, page + 12).clamp(16, PAGE) - 16) / 2;
    let entry = random.below(entries.max(1) as u64) as usize;
    match kind {
        Kind::MetaBit => flip(bytes, random.below(2) as usize * PAGE + random.below(152) as usize, random),
        Kind::HeaderBit => flip(bytes, page + random.below(16) as usize, random),
        Kind::PointerBit => {
            flip(bytes, (page + 16 + 2 * entry + random.below(2) as usize).min(page + PAGE - 1), random)
        }
        Kind::NodeBit => {
            let node = u16_at(bytes, (page + 16 + 2 * entry).min(page + PAGE - 2)).min(PAGE - 9);
            flip(bytes, page + node + random.below(8) as usize, random);
        }
        Kind::ListBit => {
            // The words of a list lie at the end of its page.
            let list = live[random.below(lists.max(1) as u64) as usize] as usize * PAGE;
            let upper = u16_at(bytes, list + 14).clamp(16, PAGE - 1);
            flip(bytes, list + upper + random.below((PAGE - upper) as u64) as usize, random);
        }
        Kind::AnyBit => flip(bytes, page + random.below(PAGE as u64) as usize, random),
        Kind::Byte => {
            let at = [random.below(24), random.below(PAGE as u64), PAGE as u64 - 1 - random.below(64)];
            bytes[page + at[random.below(3) as usize] as usize] = random.next() as u8;
        }
        Kind::Several => {
            for _ in 0..2 + random.below(3) {
                let kind = KINDS[random.below(7) as usize];
                damage(bytes, kind, random, live, lists);
            }
        }
        Kind::Zeroed => bytes[page..page + PAGE].fill(0),
        Kind::Swapped | Kind::Copied => {
            let other = any(random);
            let (one, two) = (bytes[page..page + PAGE].to_vec(), bytes[other..other + PAGE].to_vec());
            bytes[page..page + PAGE].copy_from_slice(&two);
            if kind == Kind::Swapped {
                bytes[other..other + PAGE].copy_from_slice(&one);
            } else {
                // As if it had been there all the time.
                bytes[page..page + 8].copy_from_slice(&((page / PAGE) as u64).to_ne_bytes());
            }
        }
        Kind::Random | Kind::RandomBody => {
            let from = if kind == Kind::Random { page } else { page + 16 };
            bytes[from..page + PAGE].iter_mut().for_each(|byte| *byte = random.next() as u8);
        }
        Kind::Truncated => {
            let last = *live.iter().max().expect("a page") as usize * PAGE + PAGE;
            bytes.truncate(random.below(last.min(bytes.len()) as u64) as usize);
        }
    }
}
