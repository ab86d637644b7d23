//! `check`: opens every record with the sealing keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sesscache::inspect::{Contents, Inspect, Position};
use sesscache::Status;

use crate::arguments::Check;
use crate::failure::{Failure, Outcome};
use crate::list::namespace;
use crate::only::BATCH;
use crate::output::Output;
use crate::units::number;

/// Damaged records that are named; the others are counted.
const NAMED: usize = 20;

/// What to do about a namespace that the store does not know.
pub const NAME_IT: &str = "add --namespace NAME, with the value of namespace= in the servers' options";

#[derive(Default)]
struct Tally {
    intact: u64,
    damaged: u64,
    /// Those not opened, by the hash of their namespace as `list` shows it.
    other_namespaces: BTreeMap<String, u64>,
    /// Hashes of the namespaces met.
    met: BTreeSet<u32>,
    /// Names that were given and that no record has.
    absent: Vec<String>,
    /// Short ids, and why.
    named: Vec<(String, &'static str)>,
    /// What is wrong with the store as a whole.
    store: Option<String>,
}

impl Tally {
    fn other_namespace(&self) -> u64 {
        self.other_namespaces.values().sum()
    }
}

pub fn run(arguments: &Check, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let mut tally = Tally { store: inspect.damage().map(str::to_owned), ..Tally::default() };
    match walk(&mut inspect, arguments, &mut tally) {
        // Pages that contradict themselves: what could be read is counted.
        Err(Failure::Store(error)) if error.status == Status::Format => tally.store = Some(error.detail),
        other => other?,
    }
    for name in &arguments.namespaces.names {
        if !tally.met.contains(&inspect.namespace_hash(name)) {
            tally.absent.push(name.clone());
        }
    }
    let healthy = tally.damaged == 0 && tally.store.is_none();
    let mut out = Output::new();
    if json {
        let named: Vec<_> = tally.named.iter().map(|(id, why)| json!({ "id": id, "damage": why })).collect();
        let other = tally.other_namespaces.iter();
        let other: Vec<_> = other.map(|(hash, n)| json!({ "namespace": hash, "records": n })).collect();
        out.json_pretty(&json!({
            "intact": tally.intact,
            "damaged": tally.damaged,
            "other_namespace": tally.other_namespace(),
            "other_namespaces": other,
            "absent_namespaces": tally.absent,
            "damaged_records": named,
            "damage": tally.store,
        }))?;
    } else {
        print(&tally, healthy, &mut out)?;
    }
    out.flush()?;
    Ok(Outcome::fine_if(healthy))
}

fn walk(inspect: &mut Inspect, arguments: &Check, tally: &mut Tally) -> Result<(), Failure> {
    let mut opener = inspect.opener(&arguments.namespaces.names)?;
    let total = inspect.stats()?.get("sessions").unwrap_or_default();
    // On stderr, and only when that is a terminal.
    let bar = ProgressBar::new(total).with_style(
        ProgressStyle::with_template("checking {bar:40} {human_pos} of {human_len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut position = Position::default();
    loop {
        let records = inspect.batch(&mut position, BATCH)?;
        if records.is_empty() {
            break;
        }
        bar.inc(records.len() as u64);
        for record in &records {
            // What has expired is returned to nobody, and may go at any moment.
            if !record.alive {
                continue;
            }
            tally.met.extend(record.header.as_ref().map(|header| header.namespace));
            match inspect.open_record(record, &mut opener)? {
                Contents::Plain(_) => tally.intact += 1,
                Contents::Gone => {}
                Contents::OtherNamespace => {
                    let hash = namespace(record).unwrap_or_default();
                    *tally.other_namespaces.entry(hash).or_default() += 1;
                }
                Contents::Damaged(why) => {
                    tally.damaged += 1;
                    if tally.named.len() < NAMED {
                        tally.named.push((record.short_id(), why));
                    }
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn counted(records: u64) -> String {
    format!("{} record{}", number(records), if records == 1 { "" } else { "s" })
}

fn print(tally: &Tally, healthy: bool, out: &mut Output) -> Result<(), Failure> {
    if let Some(damage) = &tally.store {
        writeln!(out, "{} {damage}", out.warning("the store is damaged:"))?;
    }
    for (id, why) in &tally.named {
        writeln!(out, "{id}  {why}")?;
    }
    if tally.damaged > tally.named.len() as u64 {
        writeln!(out, "and {} more", number(tally.damaged - tally.named.len() as u64))?;
    }
    let verdict = format!("{} intact, {} damaged", counted(tally.intact), number(tally.damaged));
    writeln!(out, "{}", if healthy { out.good(&verdict) } else { out.warning(&verdict) })?;
    let other = tally.other_namespace();
    if other > 0 {
        writeln!(out, "not opened: {}; the names of their namespaces are needed", counted(other))?;
        for (hash, n) in &tally.other_namespaces {
            writeln!(out, "    {hash}  {}", counted(*n))?;
        }
        writeln!(out, "{NAME_IT}")?;
    }
    for name in &tally.absent {
        writeln!(out, "{} no record belongs to the namespace {name}", out.bold("note:"))?;
    }
    Ok(())
}
