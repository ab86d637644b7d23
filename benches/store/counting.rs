//! What it costs that all processes count: in the shards of the control page, and in one shard for all of them.
//!
//! The operation is a lookup of an absent id in a store of one record, which does little else than count. One shard for all
//! is the same library with the same page: only the word from which a new thread takes its shard is set back.
//!
//! Says nothing on a busy machine: where `million/s` is not much more than one process alone has, the processes did not run
//! at the same time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::scratch::Scratch;
use crate::subject::{Id, Ours, Subject};
use crate::support::measure::{wall, Random, Samples};
use crate::support::processes;
use crate::support::rows::{quick, Book, Row};

/// Operations in a batch.
const BATCH: usize = 1_024;
/// Each kind is measured so often, in turns with the others.
const ROUNDS: usize = 7;

/// Where the control page has the number of the next shard, and its shards (`store/control.rs`). A page that is laid out
/// otherwise fails the check below.
const NEXT_SHARD: u64 = 104;
const SHARDS: std::ops::Range<usize> = 128..128 + 32 * SHARD;
const SHARD: usize = 192;
/// The counter of absent ids in a shard.
const MISSES_ABSENT: usize = 8;

/// Who counts where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alone,
    OwnShards,
    OneShard,
}

const KINDS: [Kind; 3] = [Kind::Alone, Kind::OwnShards, Kind::OneShard];

/// What one kind took, over all rounds.
#[derive(Default)]
struct Cost {
    lookup: Samples,
    /// Lookups per microsecond of wall time, of all processes.
    throughput: Samples,
}

pub fn counting(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let mut ours = Ours::open(&scratch.path("ours"), 8);
    let mut random = Random(11);
    let id = ours.fresh();
    ours.put(&id, &[7; 140]);
    let absent: Vec<Id> = (0..BATCH).map(|_| [0; 32]).map(|mut id| (random.fill(&mut id), id).1).collect();
    let mut costs = KINDS.map(|_| Cost::default());
    for _ in 0..if quick() { 1 } else { ROUNDS } {
        for (kind, cost) in KINDS.into_iter().zip(&mut costs) {
            let n = if kind == Kind::Alone { 1 } else { processors };
            measure(&ours, &absent, n, kind == Kind::OneShard, cost);
        }
    }
    let [alone, own, one] = &costs;
    for (case, cost) in [("count, each process in its shard", own), ("count, all processes in one shard", one)] {
        let row = Row::new("store", case, "µs")
            .param("operation", "get miss, one record")
            .param("processes", processors)
            .figure(cost.lookup.median(), Some(cost.lookup.p99()))
            .against("one process alone", alone.lookup.median())
            .more("million/s", cost.throughput.median())
            .more("million/s, one process alone", alone.throughput.median());
        book.add(if std::ptr::eq(cost, own) { row.ratio_at_most(1.1) } else { row })?;
    }
    Ok(())
}

fn measure(ours: &Ours, absent: &[Id], n: usize, one_shard: bool, cost: &mut Cost) {
    let batches = if quick() { 16 } else { 400 };
    let control = ours.cache.path().join("control");
    let before = counted(&control);
    let reports = processes::run(n, batches + 2, |number, start| {
        // Two processes on one processor take turns, and never meet in a cache line.
        processes::stay_on(number);
        let mut subject = ours.inherited();
        let turn = Turn::take(&control);
        if one_shard {
            set_next_shard(&control);
        }
        assert_eq!(subject.get(&absent[0]), None, "a miss");
        drop(turn);
        let mut lookups = Samples::default();
        start.wait();
        let begin = wall();
        for _ in 0..batches {
            lookups.batch(BATCH, || absent.iter().for_each(|id| assert_eq!(subject.get(id), None, "a miss")));
        }
        [vec![begin, wall()], lookups.0].concat()
    });
    let counts: Vec<u64> = counted(&control).iter().zip(before).map(|(is, was)| is - was).filter(|n| *n > 0).collect();
    assert_eq!(counts.len(), if one_shard { 1 } else { n }, "shards that were counted in");
    assert_eq!(counts.iter().sum::<u64>() as usize, n * (batches * BATCH + 1), "every lookup is counted");
    let begin = reports.iter().map(|numbers| numbers[0]).fold(f64::INFINITY, f64::min);
    let end = reports.iter().map(|numbers| numbers[1]).fold(0.0, f64::max);
    cost.throughput.0.push((n * batches * BATCH) as f64 / (end - begin));
    reports.iter().for_each(|numbers| cost.lookup.0.extend(&numbers[2..]));
}

/// Absent ids counted so far, shard by shard.
fn counted(control: &Path) -> Vec<u64> {
    let page = fs::read(control).expect("the control file");
    let counter = |shard: &[u8]| shard[MISSES_ABSENT..MISSES_ABSENT + 8].try_into().map_or(0, u64::from_ne_bytes);
    page[SHARDS].chunks(SHARD).map(counter).collect()
}

/// Makes the next thread count in the first shard.
fn set_next_shard(control: &Path) {
    let file = File::options().write(true).open(control).expect("the control file");
    file.write_all_at(&0_u32.to_ne_bytes(), NEXT_SHARD).expect("the number of the next shard is set back");
}

/// One process at a time takes its shard.
struct Turn(PathBuf);

impl Turn {
    fn take(control: &Path) -> Turn {
        let file = control.with_extension("turn");
        while File::create_new(&file).is_err() {
            std::thread::yield_now();
        }
        Turn(file)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("the turn ends");
    }
}
