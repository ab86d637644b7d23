//! `remove`: deletes one session or record, in every process.

use std::io::Write;

use serde_json::json;
use sesscache::inspect::Inspect;
use sesscache::{Error, Status};

use crate::arguments::RemoveArguments;
use crate::failure::{Failure, Outcome};
use crate::only::Filter;
use crate::output::Output;
use crate::show::find;

pub fn run(arguments: &RemoveArguments, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let filter = Filter::of(&inspect, &arguments.only);
    let mut found = find(&mut inspect, &arguments.id)?;
    found.retain(|record| filter.takes(record));
    let short = match &found[..] {
        [] => return Err(Error::new(Status::NotFound, "it is of another namespace or server name").into()),
        [record] => record.short_id(),
        [..] => {
            let error = Error::new(Status::Invalid, "more than one session has these digits");
            return Err(error.remedy("give the whole id").into());
        }
    };
    let is_dry = arguments.dry_run.dry_run;
    let removed = !is_dry && inspect.remove(&found)? > 0;
    let mut out = Output::new();
    if json {
        out.json(&json!({ "id": short, "removed": removed, "dry_run": is_dry }))?;
    } else if is_dry {
        writeln!(out, "would remove {short}")?;
    } else if removed {
        writeln!(out, "removed {short}")?;
    } else {
        writeln!(out, "{short} no longer exists")?;
    }
    out.flush()?;
    Ok(Outcome::fine_if(removed || is_dry))
}
