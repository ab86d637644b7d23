//! Several processes at once, forked for real: how the cost and the throughput change.

use std::io;
use std::path::PathBuf;

use crate::raw::Raw;
use crate::scratch::Scratch;
use crate::single::{capacity_for, SESSIONS, SIZE};
use crate::subject::{Id, Ours, Stock, Takes};
use crate::support::measure::{wall, Samples};
use crate::support::processes;
use crate::support::rows::{quick, Book, Row};

/// Operations in a batch.
const BATCH: usize = 64;
/// Each number of processes is measured so often, in turns with the others.
const ROUNDS: usize = 5;

/// sesscache and raw LMDB, filled alike, for children to use.
pub struct Filled {
    pub ours: Ours,
    pub stocks: [Stock; 2],
    pub raw: PathBuf,
    pub capacity: usize,
}

impl Filled {
    pub fn new(scratch: &Scratch, puts_to_come: usize) -> Filled {
        let sessions = if quick() { SESSIONS / 10 } else { SESSIONS };
        let capacity = capacity_for(sessions + puts_to_come, SIZE);
        let mut ours = Ours::open(&scratch.path("ours"), capacity);
        let raw = scratch.directory("raw");
        let mut lmdb = Raw::open(&raw, capacity);
        let stocks = [Stock::fill(&mut ours, sessions, SIZE), Stock::fill(&mut lmdb, sessions, SIZE)];
        Filled { ours, stocks, raw, capacity }
    }

    /// For use in a forked child: what it inherited of sesscache, or LMDB opened by itself.
    pub fn in_child(&self, who: usize, f: &mut dyn FnMut(&mut dyn Takes)) {
        match who {
            0 => f(&mut self.ours.inherited()),
            _ => f(&mut Raw::open(&self.raw, self.capacity)),
        }
    }
}

/// What several processes took together.
#[derive(Default)]
struct Together {
    cpu: Samples,
    /// Operations per microsecond of wall time, of all processes, per round.
    throughput: Samples,
}

/// `n` processes that do nothing but one operation.
fn together(filled: &Filled, who: usize, n: usize, puts: bool, result: &mut Together) {
    let batches = if quick() { 16 } else { 400 };
    let reports = processes::run(n, batches + 2, |number, start| {
        let stock = &filled.stocks[who];
        let mut numbers = Vec::new();
        filled.in_child(who, &mut |subject| {
            let mut samples = Samples::default();
            // Every page of the map is met once before: a server does that in its first minute.
            stock.ids.iter().for_each(|id| assert!(subject.get(id).is_some(), "a hit"));
            start.wait();
            let begin = wall();
            for batch in 0..batches {
                if puts {
                    let ids: Vec<Id> = (0..BATCH).map(|_| subject.fresh()).collect();
                    samples.batch(BATCH, || ids.iter().for_each(|id| subject.put(id, &stock.value)));
                } else {
                    let at = (number * 7 + batch) * BATCH % (stock.ids.len() - BATCH);
                    let ids = &stock.ids[at..at + BATCH];
                    samples.batch(BATCH, || ids.iter().for_each(|id| assert!(subject.get(id).is_some(), "a hit")));
                }
            }
            numbers.extend([begin, wall()]);
            numbers.append(&mut samples.0);
        });
        numbers
    });
    let begin = reports.iter().map(|numbers| numbers[0]).fold(f64::INFINITY, f64::min);
    let end = reports.iter().map(|numbers| numbers[1]).fold(0.0, f64::max);
    result.throughput.0.push((n * batches * BATCH) as f64 / (end - begin));
    reports.iter().for_each(|numbers| result.cpu.0.extend(&numbers[2..]));
}

/// Cost and throughput with 1 to 8 processes.
pub fn processes(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let counts: &[usize] = if quick() { &[1, 2] } else { &[1, 2, 4, 8] };
    let rounds = if quick() { 1 } else { ROUNDS };
    let filled = Filled::new(scratch, rounds * 15 * 400 * BATCH);
    for (case, puts) in [("get hit", false), ("put", true)] {
        let mut all: Vec<[Together; 2]> = counts.iter().map(|_| Default::default()).collect();
        for _ in 0..rounds {
            for (n, both) in counts.iter().zip(&mut all) {
                both.iter_mut().enumerate().for_each(|(who, result)| together(&filled, who, *n, puts, result));
            }
        }
        for (n, [ours, raw]) in counts.iter().zip(&all) {
            let row = Row::new("store", &format!("{case}, by processes"), "µs")
                .param("size", SIZE)
                .param("sessions", filled.stocks[0].ids.len())
                .param("processes", *n)
                .figure(ours.cpu.median(), Some(ours.cpu.p99()))
                .against("raw LMDB", raw.cpu.median())
                .more("million/s", ours.throughput.median())
                .more("raw million/s", raw.throughput.median());
            book.add(row)?;
        }
        let ours = |at: usize| &all[at][0];
        let row = Row::new("store", &format!("{case}, two processes"), "million/s")
            .param("size", SIZE)
            .param("processes", 2)
            .figure(ours(1).throughput.median(), None)
            .against("one process", ours(0).throughput.median())
            .more("by CPU time", 2.0 * ours(0).cpu.median() / ours(1).cpu.median());
        book.add(if puts { row } else { row.ratio_at_least(1.8) })?;
    }
    Ok(())
}
