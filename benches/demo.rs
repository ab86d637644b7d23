//! The chart of the demo: `sesscache demo --json` on stdin; keeps it as `docs/bench/demo.json` and draws
//! `docs/bench/demo.svg`. Run by `make demo-chart`.

#[path = "support/mod.rs"]
mod support;

use std::error::Error;
use std::path::Path;
use std::{fs, io};

use serde_json::Value;
use support::chart::{side_by_side, Bars, Group};

/// Names of the caches, as the demo has them, and as the legend has them.
const CACHES: [(&str, &str); 2] = [("OpenSSL's own", "OpenSSL's own cache"), ("sesscache", "sesscache")];

fn main() -> Result<(), Box<dyn Error>> {
    let text = io::read_to_string(io::stdin())?;
    let demo: Value = serde_json::from_str(&text).map_err(|e| format!("no figures of a demo on stdin: {e}"))?;
    let number = |value: &Value| value.as_f64().ok_or("a figure of the demo is missing");
    let figure = |protocol: &str, cache: &str, figure: &dyn Fn(&Value) -> Result<f64, &'static str>| {
        let rows = demo["rows"].as_array().map_or(&[][..], Vec::as_slice);
        let row = rows.iter().find(|row| row["protocol"] == protocol && row["cache"] == cache);
        row.ok_or("a row of the demo is missing").and_then(figure)
    };
    let groups = |of: &dyn Fn(&Value) -> Result<f64, &'static str>| -> Result<Vec<Group>, Box<dyn Error>> {
        let mut groups = Vec::new();
        for protocol in ["TLS 1.2", "TLS 1.3"] {
            let mut values = Vec::new();
            for (cache, _) in CACHES {
                values.push(Some(figure(protocol, cache, of)?));
            }
            groups.push(Group { label: protocol.to_owned(), values });
        }
        Ok(groups)
    };
    let resumed = groups(&|row| Ok(number(&row["resumed"])? * 100.0 / number(&row["offered"])?))?;
    let cpu = groups(&|row| number(&row["server_cpu_us"]))?;
    let (workers, connections) = (number(&demo["workers"])?, number(&demo["connections"])?);
    let title = format!("A server of {workers} processes, a client that comes back {connections} times");
    let series = CACHES.map(|(_, name)| name);
    let chart = |title, y, groups| Bars { title, y, x: "protocol", series: &series, groups };
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench")).to_owned();
    side_by_side(
        &docs.join("demo.svg"),
        &title,
        &[
            chart("Sessions resumed", "share of returns, %", &resumed),
            chart("Server CPU per connection", "CPU time, µs", &cpu),
        ],
    )?;
    fs::write(docs.join("demo.json"), text)?;
    Ok(())
}
