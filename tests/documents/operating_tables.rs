//! The tables of docs/operating.md: every message the library sends is explained, every counter to watch exists, and the
//! figures to size a store by are those of the last benchmark. The table in README.md is that of the last demo.

use std::fs;
use support::root;

/// The literals of the calls that send messages, without what is filled in.
fn messages() -> Vec<String> {
    let mut found = Vec::new();
    for file in support::install::files_below(&root().join("src")) {
        let source = fs::read_to_string(root().join("src").join(&file)).expect("a source");
        let source = source.split("#[cfg(test)]").next().expect("text");
        // Some are made where they are found out, with their level, and said later.
        let made = ["log::NOTICE,", "log::WARNING,"].into_iter().flat_map(|level| source.split(level).skip(1));
        let made = made.filter(|call| call.trim_start().starts_with("format!(") || call.trim_start().starts_with('"'));
        let calls = source.split(".say(").skip(1).chain(made);
        for call in calls {
            let (start, end) = (call.find('"'), call.find(';').expect("a statement ends"));
            // `fault.text()` is LMDB's own wording.
            let Some(start) = start.filter(|start| *start < end) else { continue };
            let literal = call[start + 1..].split('"').next().expect("a literal ends");
            let joined = literal.split("\\\n").map(str::trim_start).collect::<String>();
            found.push(joined);
        }
        for call in source.split("leave_behind(").skip(1).chain(source.split("renew_from(").skip(1)) {
            let arguments = call.split(')').next().expect("text");
            found.extend(arguments.split('"').nth(1).map(|why| format!("{why}: a new generation begins")));
        }
    }
    found
}

/// What stands between the places that are filled in.
fn fragments(message: &str) -> Vec<String> {
    let pieces = message.split('{').enumerate();
    let pieces =
        pieces.map(|(at, piece)| if at == 0 { piece } else { piece.split_once('}').map_or("", |(_, rest)| rest) });
    pieces.map(|piece| piece.trim_end_matches(['(', ' ']).to_owned()).filter(|piece| piece.len() > 2).collect()
}

#[test]
fn every_message_is_explained() {
    let operating = fs::read_to_string(root().join("docs/operating.md")).expect("docs/operating.md");
    let chapter = operating.split("\n## Messages\n").nth(1).expect("a chapter on messages");
    let chapter = chapter.split("\n## ").next().expect("its text");
    let rows: Vec<&str> = chapter.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let messages = messages();
    assert!(messages.len() > 10, "the messages of src are not found: {messages:#?}");
    let fits = |row: &&&str, message: &String| fragments(message).iter().all(|piece| row.contains(piece.as_str()));
    for message in &messages {
        assert!(
            rows.iter().any(|row| fits(&row, message)),
            "docs/operating.md does not say what this means: {message}"
        );
    }
    for row in &rows {
        assert!(messages.iter().any(|message| fits(&row, message)), "no message is like this any more: {row}");
    }
}

#[test]
fn the_densities_are_those_of_the_last_benchmark() {
    let operating = fs::read_to_string(root().join("docs/operating.md")).expect("docs/operating.md");
    let results = fs::read_to_string(root().join("docs/bench/results.json")).expect("docs/bench/results.json");
    let results: serde_json::Value = serde_json::from_str(&results).expect("JSON");
    for size in [106, 890] {
        let row = operating.lines().find(|line| line.contains(&format!("({size} bytes of DER)"))).expect("a row");
        let told: Vec<i64> = row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
        let rows = results.as_array().expect("a list").iter();
        let measured: Vec<i64> = rows
            .filter(|row| row["bench"] == "density" && row["params"]["size"] == size)
            .map(|row| row["median"].as_f64().expect("a number").round() as i64)
            .collect();
        assert_eq!(told, measured, "people size their store by figures that were not measured ({size} bytes)");
    }
}

#[test]
fn the_demo_in_the_readme_is_the_last_one() {
    let results = fs::read_to_string(root().join("docs/bench/demo.json")).expect("docs/bench/demo.json");
    let results: serde_json::Value = serde_json::from_str(&results).expect("JSON");
    let (readme, chart) =
        (support::demo::in_readme(), fs::read_to_string(root().join("docs/bench/demo.svg")).expect("a chart"));
    let rows = results["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4, "the demo is of two protocols, with and without");
    let in_readme: Vec<&str> = readme.lines().filter(|line| line.starts_with("TLS ")).collect();
    let measured: Vec<String> = rows.iter().map(support::demo::line).collect();
    assert_eq!(in_readme, measured, "README.md promises what was not measured; put these lines into it");
    for row in rows {
        // Each bar has its value above it, with three digits.
        let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"));
        for value in [figure("server_cpu_us"), figure("resumed") * 100.0 / figure("offered")] {
            let drawn = chart.lines().filter_map(|line| line.parse::<f64>().ok());
            let is_drawn = drawn.into_iter().any(|drawn| (drawn - value).abs() <= value / 150.0);
            assert!(is_drawn, "the chart is of another demo: no {value}; run: make demo-chart");
        }
    }
}

#[test]
fn the_counters_that_are_watched_exist() {
    let operating = fs::read_to_string(root().join("docs/operating.md")).expect("docs/operating.md");
    let chapter =
        operating.split("\n## What to watch\n").nth(1).expect("a chapter").split("\n##").next().expect("text");
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let names: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).expect("a cell").split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 10, "the table is not found");
    for name in names {
        let mut known = sesscache::COUNTERS.iter().chain(sesscache::READINGS);
        assert!(known.any(|row| row.name == name), "there is no counter {name} to watch");
    }
}
