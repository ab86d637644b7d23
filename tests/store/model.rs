//! The store against a plain map: any sequence of calls, from three processes in turn, under a clock that stands still
//! until the test moves it. Whatever is returned must be what was stored last; what is missing must have been evicted.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use support::{Clock, Data, Random, Refused, Scratch, Worker};

const PROCESSES: usize = 3;
/// Sequences of calls per test.
const CASES: u32 = 48;
/// Names of records: half of them are issued by the store, half are of the application's own choice.
const NAMES: usize = 48;
/// So many are issued, the first ones.
const ISSUED: usize = NAMES / 2;
/// Where the clock begins: a moment within a second.
const BEGIN: i64 = 1_800_000_000_250_000;

#[derive(Clone, Debug)]
enum Op {
    /// A new id for a name, which lives so many milliseconds.
    Issue(usize, i64),
    /// Bytes, and after how many seconds they expire.
    Put(usize, Data, i64),
    Get(usize),
    Take(usize),
    Remove(usize),
    Flush,
    Sweep(usize),
    /// Closes and opens in that process.
    Reopen,
    /// Milliseconds.
    Pass(i64),
    /// Opens with another capacity, in MiB.
    Resize(u64),
}

/// A call by one of the processes.
type Step = (usize, Op);

/// How long records are.
#[derive(Clone, Copy)]
enum Size {
    /// As sessions are, now and then as long as may be.
    Any,
    /// So long that a few of them fill a store of 1 MiB.
    Long,
}

/// Calls for so many names, which are of both kinds.
fn op(names: usize, size: Size) -> impl Strategy<Value = Op> {
    let name = (0..names).prop_map(move |n| n * (NAMES - 1) / (names - 1));
    let (short, long) = match size {
        Size::Any => (3, 1),
        Size::Long => (1, 9),
    };
    let len = prop_oneof![
        short => 0..600_usize,
        short => 600..9_000_usize,
        long => 9_000..=65_536_usize,
        long => Just(65_536_usize),
    ];
    let data = (len, any::<u64>()).prop_map(|(len, seed)| Data { len, seed });
    let expires = prop_oneof![4 => 100..10_000_i64, 2 => 1..4_i64, 1 => -3..=0_i64];
    prop_oneof![
        4 => (name.clone(), prop_oneof![4 => 100_000..10_000_000_i64, 1 => 1..3_000_i64]).prop_map(|(n, life)| Op::Issue(n, life)),
        14 => (name.clone(), data, expires).prop_map(|(n, data, expires)| Op::Put(n, data, expires)),
        10 => name.clone().prop_map(Op::Get),
        5 => name.clone().prop_map(Op::Take),
        3 => name.prop_map(Op::Remove),
        1 => Just(Op::Flush),
        1 => (0..40_usize).prop_map(Op::Sweep),
        2 => Just(Op::Reopen),
        4 => prop_oneof![3 => 1..1_500_i64, 1 => 1_500..200_000_i64].prop_map(Op::Pass),
    ]
}

/// What the store has to hold.
struct Model {
    ids: Vec<Vec<u8>>,
    /// When the issued ids end, in microseconds; the others never.
    ends: Vec<i64>,
    records: HashMap<usize, Held>,
    now: i64,
    generation: u64,
    /// Records that were gone before their time.
    lost: u64,
}

struct Held {
    data: Data,
    expires: i64,
    /// When its id ends. One that had ended when the record was put is a number like those of the application's own choice.
    ends: i64,
    generation: u64,
}

impl Model {
    fn new(random: &mut Random) -> Model {
        // Of all lengths, that of an issued id among them, and some the beginning of others.
        let own = |n: usize| [1, 2, 16, 31, 32, 33, 255, 254][n % 8];
        let mut ids: Vec<Vec<u8>> = (0..NAMES).map(|n| random.id(if n < ISSUED { 0 } else { own(n) })).collect();
        // Two of one random byte each may well be the same.
        (0..NAMES).filter(|n| own(*n) == 1).for_each(|n| ids[n].fill(n as u8));
        ids[NAMES - 1] = [&ids[ISSUED][..], b"+"].concat();
        ids[NAMES - 2] = [&ids[ISSUED + 4][..], b"\x01"].concat();
        Model { ids, ends: vec![i64::MAX; NAMES], records: HashMap::new(), now: BEGIN, generation: 0, lost: 0 }
    }

    /// The record that must be found, unless it was evicted.
    fn find(&self, name: usize) -> Option<&Held> {
        let held = self.records.get(&name)?;
        (self.now < held.expires * 1_000_000 && self.now < held.ends).then_some(held)
    }

    /// Of a record that was found, or not, which is the same as what the model has.
    fn check(&mut self, name: usize, what: &str, found: bool) -> Result<(), TestCaseError> {
        // Ids issued within a microsecond are told apart by ending up to a millisecond later.
        if (self.ends[name]..self.ends[name].saturating_add(1_000)).contains(&self.now) {
            return Ok(());
        }
        let Some(held) = self.find(name) else {
            prop_assert!(!found, "{what} finds a record that is expired, taken, removed or was never stored");
            return Ok(());
        };
        // Of the generations before, one is read.
        let within_reach = held.generation + 1 >= self.generation;
        if !found {
            self.lost += u64::from(within_reach);
            self.records.remove(&name);
        }
        Ok(())
    }
}

fn is_there(answer: Result<String, Refused>) -> Result<bool, TestCaseError> {
    match answer {
        Ok(_) => Ok(true),
        Err(refused) if refused.status == "NotFound" => Ok(false),
        Err(refused) => Err(TestCaseError::fail(format!("a call is refused: {refused:?}"))),
    }
}

/// Returns how many records were evicted.
fn run(options: &str, clock: &Clock, steps: &[Step], seed: u64) -> Result<u64, TestCaseError> {
    let scratch = Scratch::new("model");
    let path = scratch.join("store");
    let mut model = Model::new(&mut Random(seed));
    clock.stand(model.now);
    // A second's patience: what a busy machine delays is no matter of this test.
    let mut options = format!("deadline=1s {options}");
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| clock.worker(&path, &options)).collect();
    model.generation = workers[0].stat("generation");
    for (who, op) in steps {
        let worker = &mut workers[*who];
        match *op {
            Op::Issue(name, life) => {
                let name = name % ISSUED;
                model.ids[name] = worker.issue(Duration::from_millis(life as u64));
                model.ends[name] = model.now + life * 1_000;
                model.records.remove(&name);
            }
            Op::Put(name, data, after) => {
                if model.ids[name].is_empty() {
                    model.ids[name] = worker.issue(Duration::from_secs(1_000));
                    model.ends[name] = model.now + 1_000_000_000;
                }
                let expires = model.now / 1_000_000 + after;
                let put = worker.put(&model.ids[name], data, expires);
                prop_assert_eq!(put, Ok(()), "a record is not stored");
                let ends = if model.now < model.ends[name] { model.ends[name] } else { i64::MAX };
                model.records.insert(name, Held { data, expires, ends, generation: model.generation });
            }
            Op::Get(name) | Op::Take(name) => {
                if model.ids[name].is_empty() {
                    continue;
                }
                let take = matches!(op, Op::Take(_));
                let id = &model.ids[name];
                let call = if take { "take" } else { "get" };
                let found = worker.ask(&format!("{call} {}", support::hex(id)));
                if let (Ok(found), Some(held)) = (&found, model.find(name)) {
                    prop_assert_eq!(
                        found,
                        &held.data.digest(),
                        "{} gives something else than what was stored last",
                        call
                    );
                }
                model.check(name, call, is_there(found)?)?;
                if take && model.find(name).is_some() {
                    model.records.remove(&name);
                }
            }
            Op::Remove(name) => {
                if model.ids[name].is_empty() {
                    continue;
                }
                let removed = worker.ask(&format!("remove {}", support::hex(&model.ids[name])));
                let removed = is_there(removed)?;
                // What has expired may still lie there.
                if !removed || model.find(name).is_some() || !model.records.contains_key(&name) {
                    model.check(name, "remove", removed)?;
                }
                model.records.remove(&name);
            }
            Op::Flush => {
                prop_assert!(worker.ask("flush").is_ok());
                model.records.clear();
                model.generation = worker.stat("generation");
            }
            Op::Sweep(most) => {
                let swept = worker.ask(&format!("sweep {most}")).expect("a sweep");
                prop_assert!(swept.parse::<usize>().expect("a number") <= most);
            }
            Op::Reopen => prop_assert_eq!(worker.reopen(&path, &options), Ok(())),
            Op::Resize(mib) => {
                options =
                    options.split(" capacity=").next().expect("a part").to_owned() + &format!(" capacity={mib}MiB");
                prop_assert_eq!(worker.reopen(&path, &options), Ok(()));
                model.generation = worker.stat("generation");
            }
            Op::Pass(millis) => {
                model.now += millis * 1_000;
                clock.stand(model.now);
            }
        }
    }
    let evicted = workers[0].stat("evicted");
    prop_assert!(model.lost <= evicted, "{} records are gone, and only {evicted} had to make room", model.lost);
    workers.into_iter().for_each(Worker::finish);
    Ok(evicted)
}

/// Runs random sequences; returns how many records were evicted in all.
fn compare(options: &str, op: impl Strategy<Value = Op>) -> u64 {
    let scratch = Scratch::new("clock");
    let clock = Clock::new(&scratch);
    let steps = proptest::collection::vec((0..PROCESSES, op), 1..160);
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let evicted = Cell::new(0);
    let result = TestRunner::new(config).run(&(steps, any::<u64>()), |(steps, seed)| {
        evicted.set(evicted.get() + run(options, &clock, &steps, seed)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("with '{options}' the store is not what a map is:\n{error}");
    }
    evicted.get()
}

#[test]
fn a_store_of_64_mib_is_a_map() {
    compare("capacity=64MiB", op(NAMES, Size::Any));
}

#[test]
fn a_guarded_store_of_64_mib_is_a_map() {
    compare("guard=on capacity=64MiB", op(NAMES, Size::Any));
}

#[test]
fn a_full_store_of_1_mib_loses_what_it_evicts_and_nothing_else() {
    let evicted = compare("capacity=1MiB", op(NAMES, Size::Long));
    assert!(evicted > 0, "a store of 1 MiB is never full");
}

#[test]
fn a_full_guarded_store_of_1_mib_loses_what_it_evicts_and_nothing_else() {
    let evicted = compare("guard=on capacity=1MiB", op(NAMES, Size::Long));
    assert!(evicted > 0, "a store of 1 MiB is never full");
}

#[test]
fn what_was_replaced_or_taken_stays_so_when_the_store_changes_its_size() {
    let resize = prop_oneof![8 => op(4, Size::Any), 1 => (1..4_u64).prop_map(Op::Resize)];
    compare("capacity=8MiB", resize);
}

#[test]
fn a_record_of_a_size_or_id_that_cannot_be_is_refused() {
    let scratch = Scratch::new("limits");
    let cache = support::open(&scratch.join("store"), "");
    let expires = support::now() + 100;
    for id in [&[][..], &[7; 256]] {
        for status in [cache.put(id, b"data", expires), cache.get(id, |_| ()), cache.take(id, |_| ()), cache.remove(id)]
        {
            let error = status.expect_err("an id of 0 or 256 bytes is accepted");
            assert_eq!(error.status, sesscache::Status::Invalid, "{error}");
            assert!(error.to_string().contains("255"), "the message does not say what is accepted: {error}");
        }
    }
    let error = cache.put(b"id", &[1; 65_537], expires).expect_err("a record of more than 64 KiB is stored");
    assert_eq!(error.status, sesscache::Status::Full);
    assert!(error.to_string().contains("65536"), "the message does not say what is accepted: {error}");
    assert!(cache.get(b"id", |_| ()).is_err(), "a part of it is there");
}
