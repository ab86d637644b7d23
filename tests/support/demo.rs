//! The table of `sesscache demo`, made from its JSON.

use serde_json::Value;

/// A line of the table.
pub fn line(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name} in {row}"));
    let n = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("no {name} in {row}"));
    let (resumed, offered) = (n("resumed"), n("offered"));
    let share = format!("{resumed} of {offered} ({} %)", resumed * 100 / offered);
    let s_client = format!("{} of {}", n("s_client_resumed"), n("s_client_offered"));
    let (protocol, cache, elsewhere, cpu) =
        (text("protocol"), text("cache"), n("resumed_elsewhere"), n("server_cpu_us"));
    format!("{protocol:<7}  {cache:<13} {share:>20} {elsewhere:>11} {s_client:>10} {cpu:>13}")
}

/// What the demo printed in README.md.
pub fn in_readme() -> String {
    let readme = std::fs::read_to_string(crate::root().join("README.md")).expect("README.md");
    let block = readme.split("\n```text\n").nth(1).expect("README.md shows what the demo prints");
    block.split("```").next().expect("text").to_owned()
}
