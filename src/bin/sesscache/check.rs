//! `check`: opens every record with the sealing keys.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sesscache::inspect::{Contents, Inspect, Position};
use sesscache::Status;

use crate::arguments::Check;
use crate::failure::{Failure, Outcome};
use crate::list::BATCH;
use crate::output::Output;
use crate::units::number;

/// Damaged records that are named; the others are counted.
const NAMED: usize = 20;

#[derive(Default)]
struct Tally {
    whole: u64,
    damaged: u64,
    other_namespace: u64,
    /// Short ids, and why.
    named: Vec<(String, &'static str)>,
    /// What is wrong with the store as a whole.
    store: Option<String>,
}

pub fn run(arguments: &Check, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let mut tally = Tally { store: inspect.damage().map(str::to_owned), ..Tally::default() };
    match walk(&mut inspect, arguments, &mut tally) {
        // Pages that contradict themselves: what could be read is counted.
        Err(Failure::Store(error)) if error.status == Status::Format => tally.store = Some(error.detail),
        other => other?,
    }
    let healthy = tally.damaged == 0 && tally.store.is_none();
    let mut out = Output::new();
    if json {
        let named: Vec<_> = tally.named.iter().map(|(id, why)| json!({ "id": id, "damage": why })).collect();
        out.json_pretty(&json!({
            "whole": tally.whole,
            "damaged": tally.damaged,
            "other_namespace": tally.other_namespace,
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
            match inspect.open_record(record, &mut opener)? {
                Contents::Plain(_) => tally.whole += 1,
                Contents::Gone => {}
                Contents::OtherNamespace => tally.other_namespace += 1,
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

fn print(tally: &Tally, healthy: bool, out: &mut Output) -> Result<(), Failure> {
    if let Some(damage) = &tally.store {
        writeln!(out, "{} {damage}", out.warning("damaged:"))?;
    }
    for (id, why) in &tally.named {
        writeln!(out, "{id}  {why}")?;
    }
    if tally.damaged > tally.named.len() as u64 {
        writeln!(out, "and {} more", number(tally.damaged - tally.named.len() as u64))?;
    }
    let verdict = if healthy { out.good("whole") } else { out.warning("damaged") };
    writeln!(out, "{verdict}: {} records opened, {} did not", number(tally.whole), number(tally.damaged))?;
    if tally.other_namespace > 0 {
        writeln!(
            out,
            "{} are of namespaces that were not named, and were not opened; name them with --namespace",
            number(tally.other_namespace)
        )?;
    }
    Ok(())
}
