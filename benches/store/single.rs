//! One process: every operation beside raw LMDB, by size and by number of sessions.

use std::io;

use crate::raw::Raw;
use crate::scratch::Scratch;
use crate::subject::{Id, Ours, Stock, Subject, Takes};
use crate::support::measure::{in_turns, Samples};
use crate::support::rows::{quick, Book, Row};

/// Operations in a batch that reads.
const READS: usize = 256;
/// Operations in a batch that writes: few, so that an id is used soon after it was made.
pub const WRITES: usize = 64;

/// What most rows are about: a TLS 1.2 session, and a busy server's number of them.
pub const SIZE: usize = 140;
pub const SESSIONS: usize = 100_000;

/// Batches of each of the two in each of their turns.
pub fn batches() -> usize {
    if quick() {
        4
    } else {
        50
    }
}

/// Room for `n` records of `size` bytes, generously, in MiB.
pub fn capacity_for(n: usize, size: usize) -> usize {
    let record = size + 128;
    let bytes = if record > 2048 { record.next_multiple_of(4096) + 256 } else { record * 2 };
    (n * bytes * 3 / 2 / (1 << 20) + 16).next_multiple_of(8)
}

/// sesscache and its baseline, filled alike.
struct Pair {
    ours: Ours,
    raw: Raw,
    stocks: [Stock; 2],
    size: usize,
    sessions: usize,
}

impl Pair {
    fn new(scratch: &Scratch, sessions: usize, size: usize) -> Pair {
        let capacity = capacity_for(sessions, size);
        let mut ours = Ours::open(&scratch.path("ours"), capacity);
        let mut raw = Raw::open(&scratch.directory("raw"), capacity);
        let stocks = [Stock::fill(&mut ours, sessions, size), Stock::fill(&mut raw, sessions, size)];
        Pair { ours, raw, stocks, size, sessions }
    }

    fn subject(&mut self, who: usize) -> (&mut dyn Takes, &mut Stock) {
        let stock = &mut self.stocks[who];
        match who {
            0 => (&mut self.ours, stock),
            _ => (&mut self.raw, stock),
        }
    }

    fn row(&self, case: &str, cost: &[Samples; 2]) -> Row {
        Row::new("store", case, "µs")
            .param("size", self.size)
            .param("sessions", self.sessions)
            .param("processes", 1)
            .figure(cost[0].median(), Some(cost[0].p99()))
            .against("raw LMDB", cost[1].median())
    }

    fn get_hit(&mut self) -> [Samples; 2] {
        let size = self.size;
        in_turns(|who, samples| {
            let (subject, stock) = self.subject(who);
            for _ in 0..batches() {
                let ids = stock.some(READS);
                samples.batch(READS, || ids.iter().for_each(|id| assert_eq!(subject.get(id), Some(size), "a hit")));
            }
        })
    }

    fn get_miss(&mut self, ids: impl Fn(&mut Stock, usize) -> Vec<Id>) -> [Samples; 2] {
        in_turns(|who, samples| {
            let (subject, stock) = self.subject(who);
            for n in 0..batches() {
                let ids = ids(stock, n);
                samples.batch(ids.len(), || ids.iter().for_each(|id| assert_eq!(subject.get(id), None, "a miss")));
            }
        })
    }

    fn put(&mut self) -> [Samples; 2] {
        in_turns(|who, samples| {
            let (subject, stock) = self.subject(who);
            put_batches(subject, &stock.value, samples);
        })
    }

    fn take(&mut self) -> [Samples; 2] {
        let size = self.size;
        in_turns(|who, samples| {
            let (subject, stock) = self.subject(who);
            for _ in 0..batches() {
                let ids = stock.remove(WRITES);
                samples.batch(WRITES, || ids.iter().for_each(|id| assert_eq!(subject.take(id), Some(size), "once")));
                let again: Vec<Id> = ids.iter().map(|_| subject.fresh()).collect();
                subject.fill(&again, &stock.value);
                stock.ids.extend(again);
            }
        })
    }
}

/// Puts new records, in batches.
pub fn put_batches(subject: &mut (impl Subject + ?Sized), value: &[u8], samples: &mut Samples) {
    for _ in 0..batches() {
        let ids: Vec<Id> = (0..WRITES).map(|_| subject.fresh()).collect();
        samples.batch(WRITES, || ids.iter().for_each(|id| subject.put(id, value)));
    }
}

/// All operations, for records of `size` bytes among 100,000 sessions.
pub fn operations(book: &mut Book, scratch: &Scratch, size: usize) -> io::Result<()> {
    let sessions = if quick() { SESSIONS / 10 } else { SESSIONS };
    let mut pair = Pair::new(scratch, sessions, size);
    // The budget speaks of a TLS 1.2 session; of larger ones only that they stay close to LMDB.
    let aim = |row: Row, limit: f64| if size == SIZE { row.at_most(limit) } else { row }.ratio_at_most(2.0);

    let cost = pair.get_hit();
    book.add(aim(pair.row("get hit", &cost), 1.2))?;
    let cost = pair.get_miss(|stock, _| stock.forged(READS));
    book.add(aim(pair.row("get miss, forged id", &cost), 0.3))?;
    let cost = pair.get_miss(|stock, n| {
        let from = n * READS % (stock.absent.len() - READS);
        stock.absent[from..from + READS].to_vec()
    });
    book.add(aim(pair.row("get miss, absent id", &cost), 0.3))?;
    let cost = pair.put();
    book.add(aim(pair.row("put", &cost), 2.0))?;
    let cost = pair.take();
    book.add(aim(pair.row("take", &cost), 4.0))?;

    let mut full = Ours::open(&scratch.path("full"), full_capacity(sessions, size));
    let value = pair.stocks[0].value.clone();
    let most = sessions * 4;
    let mut put = 0;
    while full.stat("evicted") == 0.0 {
        let ids: Vec<Id> = (0..WRITES).map(|_| full.fresh()).collect();
        full.fill(&ids, &value);
        put += WRITES;
        assert!(put < most, "the store is full after {most} sessions");
    }
    let held = full.stat("sessions");
    pair.raw.evict = true;
    let cost = in_turns(|who, samples| match who {
        0 => put_batches(&mut full, &value, samples),
        _ => put_batches(&mut pair.raw, &value, samples),
    });
    let row = pair.row("put, evicting", &cost).param("sessions", held);
    book.add(aim(row, 2.0))?;
    let one = Row::new("store", "issue_id", "µs").param("processes", 1);
    if size == SIZE {
        let [cost, _] = in_turns(|_, samples| {
            samples.batch(WRITES * 16, || (0..WRITES * 16).for_each(|_| assert_ne!(full.fresh(), [0; 32])));
        });
        book.add(one.figure(cost.median(), Some(cost.p99())))?;
    }
    Ok(())
}

/// A capacity that about so many sessions fill.
fn full_capacity(sessions: usize, size: usize) -> usize {
    let record = size + 128;
    let bytes = if record > 2048 { record.next_multiple_of(4096) } else { record * 8 / 7 };
    (sessions * bytes * 8 / 7 / (1 << 20)).max(8)
}

/// How get and put grow with the number of sessions.
pub fn sessions(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let mut counts = if quick() { vec![1_000, 10_000] } else { vec![10_000, 100_000, 1_000_000] };
    if std::env::var_os("BENCH_10M").is_some_and(|value| value == "1") {
        counts.push(10_000_000);
    }
    let mut first: Option<[[f64; 2]; 2]> = None;
    for sessions in counts {
        let mut pair = Pair::new(scratch, sessions, SIZE);
        let costs = [("get hit", pair.get_hit()), ("put", pair.put())];
        let medians = costs.each_ref().map(|(_, cost)| cost.each_ref().map(Samples::median));
        for (at, (case, cost)) in costs.iter().enumerate() {
            book.add(pair.row(&format!("{case}, by sessions"), cost))?;
            let Some(first) = first else { continue };
            let grown = Row::new("store", &format!("{case}, growth"), "µs")
                .param("size", SIZE)
                .param("sessions", sessions)
                .figure(medians[at][0], Some(cost[0].p99()))
                .against("the fewest sessions", first[at][0])
                .more("raw LMDB's growth", medians[at][1] / first[at][1]);
            book.add(grown.ratio_at_most(2.0))?;
        }
        first.get_or_insert(medians);
    }
    Ok(())
}
