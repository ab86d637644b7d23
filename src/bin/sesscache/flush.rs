//! `flush`: deletes everything.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;

use crate::arguments::Change;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::units::number;

pub fn run(arguments: &Change, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.look.path, arguments.key.as_deref())?;
    // Damaged pages cannot be counted, and go all the same.
    let sessions = inspect.stats().ok().and_then(|stats| stats.get("sessions")).unwrap_or_default();
    inspect.into_cache()?.flush()?;
    let mut out = Output::new();
    if json {
        out.json(&json!({ "flushed": sessions }))?;
    } else {
        writeln!(out, "deleted {} sessions", number(sessions))?;
    }
    out.flush()?;
    Ok(Outcome::Fine)
}
