//! `sweep`: deletes what has expired.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;

use crate::arguments::SweepArguments;
use crate::failure::{Failure, Outcome};
use crate::only::collect;
use crate::output::Output;
use crate::units::number;

pub fn run(arguments: &SweepArguments, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let (is_dry, limit) = (arguments.dry_run.dry_run, arguments.limit.unwrap_or(usize::MAX));
    let swept = match is_dry {
        true => collect(&mut inspect, |record| !record.alive)?.len().min(limit),
        false => inspect.into_cache()?.sweep(limit)?,
    };
    let mut out = Output::new();
    match (json, is_dry) {
        (true, true) => out.json(&json!({ "would_sweep": swept }))?,
        (true, false) => out.json(&json!({ "swept": swept }))?,
        (false, true) => writeln!(out, "would delete {} expired sessions", number(swept as u64))?,
        (false, false) => writeln!(out, "deleted {} expired sessions", number(swept as u64))?,
    }
    out.flush()?;
    Ok(Outcome::Fine)
}
