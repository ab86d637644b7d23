//! `stat`: the store on one screen.

use std::io::Write;

use sesscache::inspect::Presence;
use sesscache::{Stats, Unit, COUNTERS};

use crate::arguments::Look;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reading::Reading;
use crate::units::{bytes, number, percent};

pub fn run(arguments: &Look, json: bool) -> Result<Outcome, Failure> {
    let reading = Reading::of(&arguments.path)?;
    let mut out = Output::new();
    if json {
        out.json_pretty(&reading.json())?;
    } else {
        print(&reading, &mut out)?;
    }
    out.flush()?;
    Ok(Outcome::fine_if(reading.warnings().is_empty()))
}

fn print(reading: &Reading, out: &mut Output) -> Result<(), Failure> {
    let warnings = reading.warnings();
    let verdict = match warnings.len() {
        0 => out.good("healthy"),
        1 => out.warning("1 warning"),
        n => out.warning(&format!("{n} warnings")),
    };
    writeln!(out, "{}  {verdict}", out.bold(&reading.path))?;
    let (all, minute) = reading.rates(Stats::resumption_rate);
    let handshakes = number(reading.stats.handshakes());
    writeln!(out, "resumed     {all} of {handshakes} handshakes (last minute {minute})")?;
    let (used, capacity) = (reading.count("used_bytes"), reading.count("capacity"));
    let share = percent(Some(used as f64 / capacity.max(1) as f64));
    writeln!(out, "sessions    {}", number(reading.count("sessions")))?;
    writeln!(out, "space       {} of {} in use ({share})", bytes(used), bytes(capacity))?;
    if let Some((first, last)) = reading.ends_in_words() {
        writeln!(out, "oldest      {first}")?;
        writeln!(out, "newest      {last}")?;
    }
    let slots = |which: fn(Presence) -> bool| reading.slots(which).map(|slots| number(slots as u64));
    match (reading.attached(), slots(|_| true), slots(|presence| presence == Presence::Gone)) {
        (Some(attached), Some(taken), Some(stale)) => writeln!(
            out,
            "processes   {} attached, {taken} of {} reader slots taken, {stale} stale",
            number(attached as u64),
            number(reading.readers_limit.into()),
        )?,
        _ => writeln!(out, "processes   unknown")?,
    }
    writeln!(out)?;
    print_counters(reading, out)?;
    for warning in warnings {
        writeln!(out, "{} {warning}", out.warning("warning:"))?;
    }
    for note in reading.notes() {
        writeln!(out, "{} {note}", out.bold("note:"))?;
    }
    Ok(())
}

/// Reasons that never occurred are left out, so that those that did stand out.
fn print_counters(reading: &Reading, out: &mut Output) -> Result<(), Failure> {
    let heading = format!("{:<24}{:>16}{:>16}", "", "total", "last minute");
    writeln!(out, "{}", out.bold(heading.trim_end()))?;
    let (all, minute) = reading.rates(Stats::hit_rate);
    writeln!(out, "{:<24}{all:>16}{minute:>16}", "hit rate")?;
    const ALWAYS: [&str; 5] = ["hits", "misses_absent", "puts", "evicted", "expired"];
    for (at, row) in COUNTERS.iter().enumerate().filter(|(_, row)| row.unit == Unit::Count) {
        let n = reading.stats.values()[at];
        if n == 0 && !ALWAYS.contains(&row.name) {
            continue;
        }
        let minute = reading.recent.as_ref().map_or("-".to_owned(), |(_, counted)| number(counted.values()[at]));
        writeln!(out, "{:<24}{:>16}{minute:>16}", row.name.replace('_', " "), number(n))?;
    }
    Ok(())
}
