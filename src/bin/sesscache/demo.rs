//! `demo`: finds and runs the script that `make demo` runs.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::arguments::Demo;
use crate::failure::{Failure, Outcome};

pub fn run(arguments: &Demo, json: bool) -> Result<Outcome, Failure> {
    let script = script()?;
    let mut command = Command::new(&script);
    if let Some(connections) = arguments.connections {
        command.env("CONNECTIONS", connections.to_string());
    }
    if let Some(key) = &arguments.key {
        command.env("KEY", key);
    }
    if json {
        command.arg("--json");
    }
    // In place of this process: signals and the exit status are the script's.
    Err(Failure::System(format!("cannot run {}", script.display()), command.exec()))
}

/// PREFIX/libexec/sesscache/demo, from where this program lies in PREFIX/bin.
fn script() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(Failure::system("cannot find this program"))?;
    let prefix = program.parent().and_then(std::path::Path::parent);
    let script = prefix.map(|prefix| prefix.join("libexec/sesscache/demo")).unwrap_or_default();
    if script.is_file() {
        return Ok(script);
    }
    let missing = io::Error::from(io::ErrorKind::NotFound);
    Err(Failure::System(format!("the demo is not installed at {}", script.display()), missing))
}
