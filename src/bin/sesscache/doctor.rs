//! `doctor`: looks at everything around a store, and says what to type.

use std::io::Write;

use serde_json::{json, Value};
use sesscache::inspect::{examine, Finding, Verdict};

use crate::arguments::Doctor;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::pid;

pub fn run(arguments: &Doctor, json: bool) -> Result<Outcome, Failure> {
    let mut findings = match (arguments.pid, &arguments.path) {
        (Some(pid), _) => pid::examine(pid)?,
        (None, Some(path)) => examine(path, arguments.key.as_deref())?,
        (None, None) => return Ok(Outcome::Misused),
    };
    findings.extend(pid::system_file());
    let mut out = Output::new();
    if json {
        out.json_pretty(&Value::Array(findings.iter().map(as_json).collect()))?;
    } else {
        for finding in &findings {
            print(finding, &mut out)?;
        }
    }
    out.flush()?;
    Ok(Outcome::fine_if(!findings.iter().any(|finding| matches!(finding.verdict, Verdict::Do(_)))))
}

fn as_json(finding: &Finding) -> Value {
    let (verdict, remedy) = match &finding.verdict {
        Verdict::Fine => ("fine", None),
        Verdict::Note => ("note", None),
        Verdict::Do(remedy) => ("warning", Some(remedy)),
    };
    json!({ "subject": finding.subject, "verdict": verdict, "text": finding.text, "remedy": remedy })
}

fn print(finding: &Finding, out: &mut Output) -> Result<(), Failure> {
    let mark = match finding.verdict {
        Verdict::Fine => out.good("ok  "),
        Verdict::Note => out.bold("note"),
        Verdict::Do(_) => out.warning("WARN"),
    };
    writeln!(out, "{mark}  {:<14}  {}", finding.subject, finding.text)?;
    if let Verdict::Do(remedy) = &finding.verdict {
        writeln!(out, "{:22}{}", "", out.bold(&format!("-> {remedy}")))?;
    }
    Ok(())
}
