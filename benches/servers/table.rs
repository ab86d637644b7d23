//! The results: one table for people, one file for programs.

use std::fmt::Write;

use serde_json::{json, Value};

use crate::cost::Cost;
use crate::share::{Share, Shares};

/// One server with one cache under one protocol.
pub struct Row {
    pub server: &'static str,
    pub version: String,
    pub cache: &'static str,
    pub tls: &'static str,
    pub shares: Shares,
    pub cost: Cost,
    pub errors: Vec<String>,
    /// Lines of the error log that ask for attention.
    pub complaints: Vec<String>,
}

const HEAD: [[&str; 10]; 2] = [
    ["", "", "within the", "after a", "after stop", "after kill", "in another", "CPU µs,", "CPU µs,", ""],
    [
        "session cache",
        "TLS",
        "instance",
        "reload",
        "and start",
        "-9 of workers",
        "instance",
        "full",
        "resumed",
        "errors",
    ],
];
const WIDTHS: [usize; 10] = [16, 11, 11, 9, 11, 14, 11, 9, 9, 7];

fn line(cells: &[String]) -> String {
    let mut text = String::new();
    for (i, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        // What is text stands left, what is a number right.
        let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
        let _ = if i < 2 { write!(text, "{cell}{pad}") } else { write!(text, "{pad}{cell}") };
    }
    text.trim_end().to_owned()
}

fn micros(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.0}"))
}

fn percent(share: Share) -> String {
    format!("{:.0} %", share.percent())
}

/// The table.
pub fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for head in HEAD {
        let _ = writeln!(text, "{}", line(&head.map(str::to_owned)));
    }
    let mut server = "";
    for row in rows {
        if row.server != server {
            server = row.server;
            let _ = writeln!(text, "\n{} ({})", server, row.version);
        }
        let shares = &row.shares;
        let cells = [
            format!("  {}", row.cache),
            row.tls.to_owned(),
            percent(shares.within),
            percent(shares.reload),
            percent(shares.restart),
            percent(shares.killed),
            percent(shares.other),
            micros(row.cost.full()),
            micros(row.cost.resumed()),
            (row.errors.len() + row.complaints.len()).to_string(),
        ];
        let _ = writeln!(text, "{}", line(&cells));
    }
    text
}

fn share(share: Share) -> Value {
    json!({ "resumed": share.resumed, "of": share.of })
}

/// The same for a file.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "server": row.server,
            "version": row.version,
            "cache": row.cache,
            "tls": row.tls,
            "within": share(row.shares.within),
            "after_reload": share(row.shares.reload),
            "after_restart": share(row.shares.restart),
            "after_kill": share(row.shares.killed),
            "other_instance": share(row.shares.other),
            "cpu_full_us": row.cost.full(),
            "cpu_resumed_us": row.cost.resumed(),
            "errors": row.errors,
            "complaints": row.complaints,
        })
    };
    rows.iter().map(row).collect()
}
