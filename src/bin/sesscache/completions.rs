//! `completions`: what a shell completes, made from the definitions.

use std::io::Write;

use crate::arguments::{command, Completions};
use crate::failure::{Failure, Outcome};

pub fn run(arguments: &Completions) -> Result<Outcome, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "sesscache", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(Outcome::Fine)
}
