//! `sesscache`: shows and manages a store. Each verb has a file; `arguments` has what they are called with.
//!
//! Works on a live store without disturbing it. Exit status 0: fine; 1: unhealthy, or not found; 2: wrong usage, or the
//! system refused.

mod arguments;
mod bench;
mod check;
mod clients;
mod completions;
mod demo;
mod doctor;
mod failure;
mod flush;
mod list;
mod ls;
mod manual;
mod metrics;
mod only;
mod output;
mod pid;
mod reading;
mod remove;
mod show;
mod signals;
mod stat;
mod sweep;
mod unit;
mod units;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use self::arguments::{Arguments, Verb};
use self::failure::{Failure, Outcome};

fn main() -> ExitCode {
    let words = arguments::with_default_verb(std::env::args_os());
    let parsed = arguments::command().try_get_matches_from(words).and_then(|m| Arguments::from_arg_matches(&m));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        // Help and version go to stdout and are no failure.
        Err(error) => error.exit(),
    };
    match run(&arguments) {
        Ok(outcome) => outcome.code(),
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let json = arguments.json;
    match &arguments.verb {
        Verb::Stat(a) => stat::run(a, json),
        Verb::Watch(a) => watch::run(a, json),
        Verb::Ls => ls::run(json),
        Verb::List(a) => list::run(a, json),
        Verb::Show(a) => show::run(a, json),
        Verb::Remove(a) => remove::run(a, json),
        Verb::Flush(a) => flush::run(a, json),
        Verb::Sweep(a) => sweep::run(a, json),
        Verb::Check(a) => check::run(a, json),
        Verb::Doctor(a) => doctor::run(a, json),
        Verb::Metrics(a) => metrics::run(a, json),
        Verb::Bench(a) => bench::run(a, json),
        Verb::Demo(a) => demo::run(a, json),
        Verb::Unit(a) => unit::run(a, json),
        Verb::Completions(a) => completions::run(a),
        Verb::Manual => manual::run(&Arguments::command()),
    }
}
