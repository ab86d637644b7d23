//! What the benchmarks found: a table on the terminal, `docs/bench/results.json`, and charts beside it.

#[path = "support/mod.rs"]
mod support;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::chart::{bars, short, Bars, Group};
use support::rows::{quick, read_all, Row};

fn main() -> Result<(), Box<dyn Error>> {
    let rows = read_all()?;
    let mut table = "";
    for row in &rows {
        if row.bench != table {
            table = &row.bench;
            println!("\n{table}\n{:<44} {:<58} {:>10} {:>10} {:>8}  target", "", "", "median", "p99", "ratio");
        }
        print_row(row);
    }
    let missed = rows.iter().filter(|row| row.met == Some(false)).count();
    println!("\n{} figures, {missed} targets missed", rows.len());
    if quick() {
        println!("a quick run: docs/bench is left as it is");
        return Ok(());
    }
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench")).to_owned();
    fs::create_dir_all(&docs)?;
    let json: Vec<Value> = rows.iter().map(Row::to_json).collect();
    fs::write(docs.join("results.json"), format!("{:#}\n", Value::Array(json)))?;
    charts(&rows, &docs)
}

fn print_row(row: &Row) {
    let params: Vec<String> = row.params.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    let number = |value: Option<f64>| value.map_or_else(String::new, short);
    let met = match row.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    println!(
        "{:<44} {:<58} {:>7} {:<2} {:>10} {:>8}  {} {met}",
        row.case,
        params.join(", "),
        short(row.median),
        row.unit,
        number(row.p99),
        number(row.ratio),
        row.target.as_deref().unwrap_or("")
    );
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn charts(rows: &[Row], docs: &Path) -> Result<(), Box<dyn Error>> {
    let file = |name: &str| -> PathBuf { docs.join(name) };
    let operations: Vec<Group> =
        ["get miss, forged id", "get miss, absent id", "get hit", "put", "put, evicting", "take"]
            .iter()
            .filter_map(|case| {
                let row = rows
                    .iter()
                    .find(|row| row.bench == "store" && row.case == *case && row.number("size") == Some(140.0))?;
                let raw = row.baseline.as_ref().map(|(_, value)| *value);
                Some(Group { label: (*case).to_owned(), values: vec![Some(row.median), raw] })
            })
            .collect();
    if !operations.is_empty() {
        let chart = Bars {
            title: "Store: CPU time per operation, 140 bytes, 100,000 sessions",
            y: "CPU time, µs",
            x: "operation",
            series: &["sesscache", "raw LMDB, same bytes"],
            groups: &operations,
        };
        bars(&file("store.svg"), &chart)?;
    }
    let caches = ["pass-through", "d2i and i2d alone", "OpenSSL's own cache", "sesscache", "stateless tickets"];
    let kinds = [("1.2", "none"), ("1.2", "RSA-2048"), ("1.3", "none"), ("1.3", "RSA-2048")];
    let handshakes: Vec<Group> = kinds
        .iter()
        .map(|(version, client)| {
            let is = |row: &&Row, cache: &str| {
                let param = |name: &str| row.params.get(name).map(plain).unwrap_or_default();
                row.case.starts_with("resumed")
                    && !row.case.contains("many times")
                    && param("transport") == "memory"
                    && param("key") == "ECDSA P-256"
                    && param("version") == *version
                    && param("client") == *client
                    && param("cache") == cache
            };
            let certificate = if *client == "none" { "" } else { ", client cert" };
            Group {
                label: format!("TLS {version}{certificate}"),
                values: caches
                    .iter()
                    .map(|cache| rows.iter().find(|row| is(row, cache)).map(|row| row.median))
                    .collect(),
            }
        })
        .filter(|group| group.values.iter().any(Option::is_some))
        .collect();
    if !handshakes.is_empty() {
        let chart = Bars {
            title: "Resumed handshake: server CPU, memory BIOs (TLS 1.3: each ticket once)",
            y: "server CPU, µs",
            x: "protocol",
            series: &caches,
            groups: &handshakes,
        };
        bars(&file("handshake.svg"), &chart)?;
    }
    Ok(())
}
