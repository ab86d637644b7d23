//! A server that forks for each connection: what the first lookup of a child takes; and what opening takes.

use std::io;
use std::path::Path;

use crate::scratch::Scratch;
use crate::several::Filled;
use crate::single::SIZE;
use crate::subject::{Id, Ours, Subject};
use crate::support::measure::{cpu, wall, Random, Samples};
use crate::support::processes;
use crate::support::rows::{quick, Book, Row};

/// What a child process takes for its first lookup, where its parent has the store open; and what opening takes.
pub fn fork(book: &mut Book, scratch: &Scratch) -> io::Result<()> {
    let children = if quick() { 10 } else { 300 };
    let filled = Filled::new(scratch, 0);
    let mut random = Random(3);
    let [ours, raw] = [0, 1].map(|who| {
        let mut costs = [Samples::default(), Samples::default(), Samples::default()];
        for _ in 0..children {
            let id = filled.stocks[who].ids[random.below(filled.stocks[who].ids.len())];
            let numbers = processes::run_one(3, || first_lookup(&filled, who, &id));
            costs.iter_mut().zip(numbers).for_each(|(samples, value)| samples.0.push(value));
        }
        costs
    });
    let sessions = filled.stocks[0].ids.len();
    let row = |case: &str| Row::new("fork", case, "µs").param("size", SIZE).param("sessions", sessions);
    let first = row("first lookup in a forked child")
        .figure(ours[0].median(), Some(ours[0].p99()))
        .against("LMDB opened and asked", raw[0].median())
        .more("wall", ours[1].median())
        .more("second lookup", ours[2].median());
    book.add(first.at_most(150.0))?;

    let path = filled.ours.cache.path().to_owned();
    let (Filled { stocks, capacity, ours, .. }, mut cost) = (filled, [Samples::default(), Samples::default()]);
    drop(ours);
    for _ in 0..children {
        let id = stocks[0].ids[random.below(sessions)];
        let numbers = processes::run_one(2, || open_and_look(&path, capacity, &id));
        cost.iter_mut().zip(numbers).for_each(|(samples, value)| samples.0.push(value));
    }
    book.add(row("open, warm").figure(cost[0].median(), Some(cost[0].p99())).at_most(200.0))?;
    book.add(row("open and first lookup, warm").figure(cost[1].median(), Some(cost[1].p99())))
}

fn first_lookup(filled: &Filled, who: usize, id: &Id) -> Vec<f64> {
    let (clock, begin) = (cpu(), wall());
    let mut numbers = Vec::new();
    filled.in_child(who, &mut |subject| {
        assert!(subject.get(id).is_some(), "a hit in the child");
        numbers.extend([cpu() - clock, wall() - begin]);
        let clock = cpu();
        assert!(subject.get(id).is_some(), "a second hit");
        numbers.push(cpu() - clock);
    });
    numbers
}

fn open_and_look(path: &Path, capacity: usize, id: &Id) -> Vec<f64> {
    let clock = cpu();
    let mut ours = Ours::open(path, capacity);
    let opened = cpu() - clock;
    assert!(ours.get(id).is_some(), "a hit after opening");
    vec![opened, cpu() - clock]
}
