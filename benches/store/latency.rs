//! How long one has to wait, by the clock on the wall, among processes that have other work as well.

use std::cell::RefCell;
use std::io;

use crate::scratch::Scratch;
use crate::several::Filled;
use crate::single::SIZE;
use crate::subject::Id;
use crate::support::measure::{calibrate, wall, work, Random, Samples};
use crate::support::processes;
use crate::support::rows::{quick, Book, Row};

const NAMES: [&str; 2] = ["sesscache", "raw LMDB"];

/// What single operations took.
struct Waits {
    get: Samples,
    put: Samples,
}

/// `who`: 0 and 1 as ever, 2 does nothing that could wait: its tail is the machine's.
fn waits(filled: &Filled, who: usize, n: usize, rounds: usize, steps: u64, with_gets: bool) -> Waits {
    let of = if with_gets { 2 } else { 1 };
    let reports = processes::run(n, rounds * of, |number, start| {
        let mut numbers = Vec::new();
        let mut measure = |get: &mut dyn FnMut(&Id), put: &mut dyn FnMut(&[u8]) -> f64| {
            let stock = &filled.stocks[who % 2];
            let mut random = Random(number as u64);
            stock.ids.iter().for_each(&mut *get);
            start.wait();
            for _ in 0..rounds {
                work(steps);
                numbers.push(put(&stock.value));
                if with_gets {
                    work(steps);
                    let id = &stock.ids[random.below(stock.ids.len())];
                    let begin = wall();
                    get(id);
                    numbers.push(wall() - begin);
                }
            }
        };
        if who == 2 {
            // About as long as a put.
            let nothing = steps / 50;
            measure(&mut |_| work(nothing / 2), &mut |_| timed(|| work(nothing)));
        } else {
            filled.in_child(who, &mut |subject| {
                let subject = RefCell::new(subject);
                measure(&mut |id| assert!(subject.borrow_mut().get(id).is_some(), "a hit"), &mut |value| {
                    let mut subject = subject.borrow_mut();
                    let id = subject.fresh();
                    timed(|| subject.put(&id, value))
                });
            });
        }
        numbers
    });
    let mut waits = Waits { get: Samples::default(), put: Samples::default() };
    for numbers in reports {
        for (at, value) in numbers.into_iter().enumerate() {
            if at % of == 0 { &mut waits.put } else { &mut waits.get }.0.push(value);
        }
    }
    waits
}

fn timed(f: impl FnOnce()) -> f64 {
    let begin = wall();
    f();
    wall() - begin
}

/// Waiting times with 8 processes, and the mean of a put with 4 that write.
pub fn latency(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let (n, rounds) = if quick() { (2, 200) } else { (8, 5_000) };
    let filled = Filled::new(scratch, n * rounds * 2);
    let steps = calibrate(100.0);
    let all = [0, 1, 2].map(|who| waits(&filled, who, n, rounds, steps, true));
    type Select = fn(&Waits) -> &Samples;
    let select: [(&str, Select); 2] = [("get hit", |waits| &waits.get), ("put", |waits| &waits.put)];
    for (case, samples) in select {
        let [ours, raw, nothing] = all.each_ref().map(samples);
        for (name, samples) in [(NAMES[0], ours), (NAMES[1], raw), ("nothing", nothing)] {
            let row = Row::new("latency", &format!("{case}, {name}"), "µs")
                .param("size", SIZE)
                .param("sessions", filled.stocks[0].ids.len())
                .param("processes", n)
                .figure(samples.median(), Some(samples.p99()))
                .more("p99.9", samples.percentile(99.9))
                .more("max", samples.max())
                .more("mean", samples.mean());
            let row = if name == NAMES[0] { row.against(NAMES[1], raw.median()) } else { row };
            let aimed = case == "put" && name == NAMES[0];
            book.add(if aimed { row.p99_at_most(100.0) } else { row })?;
        }
    }
    let writers = if quick() { 2 } else { 4 };
    let [ours, raw] = [0, 1].map(|who| waits(&filled, who, writers, rounds, steps, false).put);
    let row = Row::new("latency", "put, mean", "µs")
        .param("size", SIZE)
        .param("sessions", filled.stocks[0].ids.len())
        .param("processes", writers)
        .figure(ours.mean(), Some(ours.p99()))
        .against(NAMES[1], raw.mean());
    book.add(row)
}
