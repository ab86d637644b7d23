//! `manual`: the manual page in mdoc, made from the definitions of the command line and the tables of the library.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::{Arg, Command};
use sesscache::{CounterRow, Unit, COUNTERS, OPTIONS, READINGS};

use crate::failure::{Failure, Outcome};

pub fn run(command: &Command) -> Result<Outcome, Failure> {
    let mut command = command.clone();
    command.build();
    std::io::stdout().write_all(page(&command).as_bytes())?;
    Ok(Outcome::Fine)
}

fn page(command: &Command) -> String {
    let verbs: Vec<&Command> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help").collect();
    let mut page = String::from(
        ".\\\" Made by `make manual` from the program's definitions. Do not edit.\n\
         .Dd $Mdocdate$\n.Dt SESSCACHE 1\n.Os\n.Sh NAME\n.Nm sesscache\n.Nd show and manage a store of TLS sessions\n\
         .Sh SYNOPSIS\n.Nm\n.Ar PATH\n",
    );
    for verb in &verbs {
        let _ = writeln!(page, ".Nm\n.Cm {}", verb.get_name());
        for arg in arguments(verb) {
            let _ = writeln!(page, "{}", synopsis(arg));
        }
    }
    page.push_str(".Sh DESCRIPTION\n");
    page.push_str(&text(command.get_long_about().or(command.get_about())));
    page.push_str(
        ".Pp\n.Ar PATH\nis the directory that the servers give to\n.Fn sesscache_open .\n\
         Without a command,\n.Nm\nruns\n.Cm stat .\n\
         .Pp\nThe commands are:\n.Bl -tag -width Ds\n",
    );
    for verb in &verbs {
        page.push_str(&entry(verb));
    }
    page.push_str(".El\n");
    let json = command.get_arguments().find(|arg| arg.get_id() == "json");
    let _ =
        write!(page, ".Pp\nEvery command accepts:\n.Bl -tag -width Ds\n{}.El\n", json.map(option).unwrap_or_default());
    page.push_str(&counters());
    page.push_str(
        ".Sh ENVIRONMENT\n.Bl -tag -width Ds\n.It Ev NO_COLOR\nIf it is set, the output has no colours.\n.El\n\
         .Sh EXIT STATUS\n.Bl -tag -width Ds\n.It 0\nSuccess; the store is healthy.\n\
         .It 1\nThe store is unhealthy, or the requested record does not exist.\n\
         .It 2\nWrong usage, or a system error.\n.El\n\
         .Sh EXAMPLES\nShow the store on one screen:\n.Pp\n.Dl sesscache /run/myserver-tls\n\
         .Pp\nFind problems, and the commands that fix them:\n.Pp\n.Dl sesscache doctor /run/myserver-tls\n\
         .Pp\nRead the share of handshakes that resumed in a script:\n.Pp\n.Dl sesscache --json /run/myserver-tls | jq .resumption_rate\n\
         .Pp\nWrite metrics for the textfile collector of the Prometheus node exporter:\n.Pp\n\
         .Dl sesscache metrics /run/myserver-tls --output /var/lib/node_exporter/sesscache.prom\n",
    );
    page.push_str(&options());
    page.push_str(".Sh SEE ALSO\n.Xr openssl-sess_id 1 ,\n.Xr sesscache 3 ,\n.Xr sesscache_options 7\n");
    page
}

/// Positional arguments first, as they are typed.
fn arguments(verb: &Command) -> Vec<&Arg> {
    let own = |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version" | "json");
    let (mut positional, options): (Vec<&Arg>, Vec<&Arg>) =
        verb.get_arguments().filter(own).partition(|arg| arg.is_positional());
    positional.extend(options);
    positional
}

fn value_name(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    takes_value.then(|| name.unwrap_or_else(|| arg.get_id().as_str().to_uppercase()))
}

fn flag(arg: &Arg) -> String {
    // In mdoc the first dash of a flag is added by the macro.
    let name = format!("Fl -{}", arg.get_long().unwrap_or_default());
    value_name(arg).map_or(name.clone(), |value| format!("{name} Ar {value}"))
}

fn synopsis(arg: &Arg) -> String {
    match arg.is_positional() {
        true => format!(".Ar {}", value_name(arg).unwrap_or_default()),
        false => format!(".Op {}", flag(arg)),
    }
}

fn entry(verb: &Command) -> String {
    let mut entry = format!(".It Cm {}", verb.get_name());
    for arg in arguments(verb).into_iter().filter(|arg| arg.is_positional()) {
        let _ = write!(entry, " Ar {}", value_name(arg).unwrap_or_default());
    }
    entry.push('\n');
    entry.push_str(&text(verb.get_long_about().or(verb.get_about())));
    let options: Vec<&Arg> = arguments(verb).into_iter().filter(|arg| !arg.is_positional()).collect();
    if !options.is_empty() {
        entry.push_str(".Bl -tag -width Ds\n");
        options.iter().for_each(|arg| entry.push_str(&option(arg)));
        entry.push_str(".El\n");
    }
    entry
}

fn option(arg: &Arg) -> String {
    let mut text = format!(".It {}\n{}", flag(arg), text(arg.get_long_help().or(arg.get_help())));
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| arg.get_action().takes_values() && !value.is_hide_set())
        .map(|value| {
            let help = value.get_help().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}{help}", value.get_name())
        })
        .collect();
    if !values.is_empty() {
        let _ = writeln!(text, "One of {}.", escape(&values.join(", ")));
    }
    if let Some(default) = arg.get_default_values().first().filter(|_| arg.get_action().takes_values()) {
        let _ = writeln!(text, "By default {}.", escape(&default.to_string_lossy()));
    }
    text
}

fn counters() -> String {
    let mut text = String::from(
        ".Sh COUNTERS\nThese are the names of the fields in JSON.\nMetrics are named\n.Li sesscache_ Ns Ar NAME ;\n\
         counters end in\n.Li _total ,\nbytes in\n.Li _bytes\nand times in\n.Li _timestamp_seconds .\n\
         What may come of one thing is one metric with a label:\n\
         .Li sesscache_lookups_total{result=} ,\n.Li sesscache_stores_total{result=} ,\n\
         .Li sesscache_removals_total{reason=}\nand\n.Li sesscache_handshakes_total{kind=} .\n\
         .Bl -tag -width Ds\n",
    );
    let row = |row: &CounterRow| {
        let unit = match row.unit {
            Unit::Count => "counter",
            Unit::Now => "number",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
            Unit::Time => "time",
        };
        format!(".It Li {} Pq {unit}\n{}.\n", row.name, escape(row.meaning))
    };
    COUNTERS.iter().chain(READINGS).for_each(|each| text.push_str(&row(each)));
    text.push_str(
        ".It Li last_minute\nThe counts of about the last minute, and its exact length in\n.Li seconds ;\nnull when they \
         are not known.\n.It Li warnings , notes\nLists of sentences.\n.El\n",
    );
    text
}

fn options() -> String {
    let mut text = String::from(
        ".Sh OPTIONS OF A STORE\nServers pass these options to\n.Fn sesscache_open\nand\n.Fn sesscache_enable ,\n\
         as one string of\n.Ar name Ns = Ns Ar value\npairs separated by spaces:\n.Bl -tag -width Ds\n",
    );
    for row in OPTIONS {
        let _ = writeln!(
            text,
            ".It Li {}=\n{}\nTakes {}; by default {}.",
            row.name,
            escape(row.meaning).replace(". ", ".\n"),
            escape(row.accepts),
            escape(row.default)
        );
    }
    text.push_str(".El\n");
    text
}

/// Paragraphs, each sentence on a line of its own, as mdoc wants it.
fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    let plain = styled.map(ToString::to_string).unwrap_or_default();
    let paragraphs: Vec<String> = plain
        .split("\n\n")
        .map(|paragraph| {
            let mut line = escape(paragraph.trim()).replace('\n', " ").replace(". ", ".\n");
            if !line.ends_with('.') {
                line.push('.');
            }
            line + "\n"
        })
        .collect();
    paragraphs.join(".Pp\n")
}

/// Keeps roff from seeing macros and escapes in prose.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
