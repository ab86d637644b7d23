//! `flush`: deletes everything, or everything of a namespace or a server name.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;

use crate::arguments::FlushArguments;
use crate::failure::{Failure, Outcome};
use crate::only::{collect, Filter};
use crate::output::Output;
use crate::units::number;

pub fn run(arguments: &FlushArguments, json: bool) -> Result<Outcome, Failure> {
    let change = &arguments.change;
    let mut inspect = Inspect::open(&change.look.path, change.key.as_deref())?;
    let filter = Filter::of(&inspect, &arguments.only);
    let is_dry = arguments.dry_run.dry_run;
    let sessions = if filter.is_all() {
        // Damaged pages cannot be counted, and go all the same.
        let sessions = inspect.stats().ok().and_then(|stats| stats.get("sessions")).unwrap_or_default();
        if !is_dry {
            inspect.into_cache()?.flush()?;
        }
        sessions
    } else {
        let records = collect(&mut inspect, |record| filter.takes(record))?;
        if is_dry {
            records.len() as u64
        } else {
            inspect.remove(&records)?
        }
    };
    let mut out = Output::new();
    match (json, is_dry) {
        (true, true) => out.json(&json!({ "would_flush": sessions }))?,
        (true, false) => out.json(&json!({ "flushed": sessions }))?,
        (false, true) => writeln!(out, "would delete {} sessions", number(sessions))?,
        (false, false) => writeln!(out, "deleted {} sessions", number(sessions))?,
    }
    out.flush()?;
    Ok(Outcome::Fine)
}
