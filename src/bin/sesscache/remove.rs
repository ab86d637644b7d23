//! `remove`: deletes one session or record, in every process.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;
use sesscache::{Error, Status};

use crate::arguments::RemoveArguments;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::show::find;

pub fn run(arguments: &RemoveArguments, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let mut found = find(&mut inspect, &arguments.id)?;
    let (Some(record), true) = (found.pop(), found.is_empty()) else {
        let error = Error::new(Status::Invalid, "more than one session has these digits");
        return Err(error.remedy("give the whole id").into());
    };
    let short = record.short_id();
    let removed = inspect.remove(&record)?;
    let mut out = Output::new();
    if json {
        out.json(&json!({ "id": short, "removed": removed }))?;
    } else if removed {
        writeln!(out, "removed {short}")?;
    } else {
        writeln!(out, "{short} no longer exists")?;
    }
    out.flush()?;
    Ok(Outcome::fine_if(removed))
}
