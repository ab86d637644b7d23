//! `sweep`: deletes what has expired.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;

use crate::arguments::SweepArguments;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::units::number;

pub fn run(arguments: &SweepArguments, json: bool) -> Result<Outcome, Failure> {
    let inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let swept = inspect.into_cache()?.sweep(arguments.limit.unwrap_or(usize::MAX))?;
    let mut out = Output::new();
    if json {
        out.json(&json!({ "swept": swept }))?;
    } else {
        writeln!(out, "deleted {} expired sessions", number(swept as u64))?;
    }
    out.flush()?;
    Ok(Outcome::Fine)
}
