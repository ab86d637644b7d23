//! The staged program: runs it on a store and reads what it says.

use crate::{run, staged, Finished};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest that the program may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs it to its end.
pub fn sesscache(arguments: &[&str]) -> Finished {
    run(staged("sesscache").args(arguments), DEADLINE, "")
}

/// Its exit status; a signal is a failure of the test.
pub fn exit_status(done: &Finished) -> i32 {
    done.status.code().unwrap_or_else(|| panic!("the program is killed by a signal\n{done}"))
}

/// Runs it, which must succeed, and reads one JSON value.
pub fn json(arguments: &[&str]) -> Value {
    let done = sesscache(arguments).expect_success("the program fails on a healthy store");
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("a script cannot read this as JSON: {e}\n{done}"))
}

/// The same where each line is a value.
pub fn json_lines(arguments: &[&str]) -> Vec<Value> {
    let done = sesscache(arguments).expect_success("the program fails on a healthy store");
    let value =
        |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON: {e}: {line}")) };
    done.stdout.lines().map(value).collect()
}

/// A number in a JSON object.
pub fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

/// A text in a JSON object.
pub fn word(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {value}")).to_owned()
}

/// A visit of the stock `openssl s_client` over TLS 1.2, which saves its session in a file.
pub fn visit(port: u16, session: &str) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-tls1_2", "-connect", &format!("127.0.0.1:{port}"), "-sess_out", session]);
    run(&mut command, DEADLINE, "bye\n").expect_success("openssl s_client cannot connect");
}

/// The files in a directory and below, with their contents.
pub fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                files.push((path.display().to_string(), bytes));
            }
        }
    }
    files.sort();
    files
}
