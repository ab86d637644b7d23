//! What the program is called with. The help, the manual page and the completions are made from this.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use crate::units;

/// Shows and manages a store of TLS sessions.
///
/// Works on a live store without disturbing it: reading verbs create nothing and change nothing.
#[derive(Parser)]
#[command(name = "sesscache", version, about, subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
#[command(after_help = "`sesscache PATH` is `sesscache stat PATH`.\n\
    Exit status: 0 fine; 1 unhealthy, or not found; 2 wrong usage, or the system refused.")]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Print JSON, with the names of the counter table
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs, in the order of the manual page.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the store on one screen
    ///
    /// Sessions, capacity, hit rate since the store was made and over the last minute, misses and refusals by reason,
    /// processes attached, and in words what is not as it should be. Exit status 1 when there is such a warning.
    Stat(Look),
    /// Show rates as they happen
    ///
    /// A full screen with charts on a terminal, which q ends; otherwise a line per interval.
    Watch(Watch),
    /// List the sessions and records
    ///
    /// One line each: 8 digits of a hash of the id, protocol, hashes of server name and namespace, age, time left and
    /// size. With --json a JSON object per line. The list is no snapshot: what is stored or removed meanwhile may or may
    /// not be in it.
    List(List),
    /// Show one session or record
    ///
    /// Key material only with --secrets.
    Show(Show),
    /// Delete one session or record, in every process
    Remove(Remove),
    /// Forget everything, in every process, at once
    ///
    /// A new sealing key is made first, so that what is left in freed pages or backups cannot be read. A key file named
    /// with --key is the operator's and stays.
    Flush(Change),
    /// Delete what has expired
    ///
    /// Never needed: expired sessions leave with later stores.
    Sweep(Sweep),
    /// Open every record with the sealing keys
    ///
    /// Exit status 1 when one is damaged. Records that cannot be opened without the name of their namespace are counted
    /// apart.
    Check(Check),
    /// Look at owner, modes, file system, space, limits and versions
    ///
    /// Says what to type for each thing that is not as it should be; exit status 1 when there is one.
    Doctor(Doctor),
    /// Print metrics for Prometheus
    Metrics(Metrics),
    /// Measure put, get and take on this machine and file system
    ///
    /// In a scratch store beside PATH, which is removed afterwards; never in PATH itself. PATH need not be there, the
    /// directory that it is in must.
    Bench(Bench),
    /// Show in a table what the cache does for a server of four processes
    ///
    /// Starts a server and clients on the loopback interface; takes about 15 seconds. With --json an object: workers,
    /// processors, key, connections, and rows of protocol, cache, offered, resumed, resumed_elsewhere (by a process other
    /// than the one that made the session), s_client_offered, s_client_resumed, and server_cpu_us, which is the server's
    /// processor time for a connection in microseconds.
    Demo(Demo),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(Completions),
    /// Print the manual page
    #[command(hide = true)]
    Manual,
}

/// A store to look at.
#[derive(Args)]
pub struct Look {
    /// Directory of the store
    #[arg(value_hint = ValueHint::DirPath)]
    pub path: PathBuf,
}

/// A store to look at or to change with the keys of its records.
#[derive(Args)]
pub struct Change {
    #[command(flatten)]
    pub look: Look,
    /// File of the sealing keys, when it is not PATH/key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
}

/// Which namespaces can be opened besides those that the store knows.
#[derive(Args)]
pub struct Namespaces {
    /// Also open the records of this namespace; may be given several times
    ///
    /// Seldom needed. The seal of a record names its namespace, of which the store knows the hash, but for 31 namespaces
    /// only. Where a name is needed the output says so.
    #[arg(long = "namespace", value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `watch`.
#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    pub look: Look,
    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// End after so many readings
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Arguments of `list`.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub look: Look,
    /// Only what expires within this time, as 90s, 5m or 2h
    #[arg(long, value_name = "TIME", value_parser = units::parse_time)]
    pub expires_within: Option<Duration>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// Arguments of `show`.
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    pub change: Change,
    /// The 8 digits that `list` shows, or the whole id in hexadecimal
    #[arg(value_parser = id)]
    pub id: Wanted,
    /// Also print what is sealed: a session with its master key, an application's data
    #[arg(long)]
    pub secrets: bool,
    /// How --secrets prints a session
    #[arg(long, value_name = "FORMAT", default_value = "text", requires = "secrets")]
    pub format: SessionFormat,
    #[command(flatten)]
    pub namespaces: Namespaces,
}

/// How a session is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionFormat {
    /// as `openssl sess_id -text` does
    Text,
    /// for `openssl s_client -sess_in`
    Pem,
}

/// Arguments of `remove`.
#[derive(Args)]
pub struct Remove {
    #[command(flatten)]
    pub change: Change,
    /// The 8 digits that `list` shows, or the whole id in hexadecimal
    #[arg(value_parser = id)]
    pub id: Wanted,
}

/// Arguments of `sweep`.
#[derive(Args)]
pub struct Sweep {
    #[command(flatten)]
    pub change: Change,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Arguments of `check`.
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub namespaces: Namespaces,
}

/// Arguments of `doctor`.
#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `metrics`.
#[derive(Args)]
pub struct Metrics {
    #[command(flatten)]
    pub look: Look,
    /// Which text format
    #[arg(long, value_name = "FORMAT", default_value = "prometheus")]
    pub format: MetricsFormat,
    /// Write to a new file that then takes the place of FILE, for the textfile collector
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "listen")]
    pub output: Option<PathBuf>,
    /// Answer GET /metrics at this address until interrupted
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// The text formats of metrics.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricsFormat {
    /// Prometheus text format 0.0.4
    Prometheus,
    /// OpenMetrics 1.0
    Openmetrics,
}

/// Arguments of `bench`.
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub look: Look,
    /// Sessions in the scratch store
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub sessions: u64,
    /// Bytes of a session
    #[arg(long, value_name = "N", default_value = "140", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub bytes: u64,
}

/// Arguments of `demo`.
#[derive(Args)]
pub struct Demo {
    /// Connections behind each figure; 2000 unless the environment has CONNECTIONS
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub connections: Option<u32>,
    /// The server's key, rsa:BITS or ec; rsa:2048 unless the environment has KEY
    #[arg(long, value_name = "KIND")]
    pub key: Option<String>,
}

/// Arguments of `completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The record that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By the 8 digits of its hash.
    Short(String),
    /// By its id.
    Whole(Vec<u8>),
}

fn id(text: &str) -> Result<Wanted, String> {
    let digits = text.to_ascii_lowercase();
    if digits.is_empty() || digits.len() % 2 != 0 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("give the 8 digits that `list` shows, or the whole id in hexadecimal".to_owned());
    }
    if digits.len() == 8 {
        return Ok(Wanted::Short(digits));
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|e| e.to_string());
    (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Wanted::Whole)
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = units::parse_time(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&time);
    fits.then_some(time).ok_or_else(|| "a time from 100ms to 1h".to_owned())
}

/// The command line as clap knows it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// `sesscache PATH` is `sesscache stat PATH`: puts the verb in where a path stands in its place.
pub fn with_default_verb(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let command = command();
    let is_flag = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let positional: Vec<usize> = (1..words.len()).filter(|at| !is_flag(&words[*at])).collect();
    let Some(first) = positional.first().map(|at| words[*at].clone()) else { return words };
    if first.to_str().is_some_and(|first| command.find_subcommand(first).is_some() || first == "help") {
        return words;
    }
    // A word that is no path and is followed by another is a misspelt verb: clap has a suggestion.
    let is_path = first.as_encoded_bytes().contains(&b'/') || Path::new(&first).is_dir();
    if is_path || positional.len() == 1 {
        words.insert(1, "stat".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb_of(words: &[&str]) -> Option<String> {
        let words = with_default_verb(std::iter::once("sesscache").chain(words.iter().copied()).map(OsString::from));
        let matches = command().try_get_matches_from(words).ok()?;
        matches.subcommand_name().map(str::to_owned)
    }

    #[test]
    fn a_path_alone_is_shown_and_a_misspelt_verb_is_refused() {
        command().debug_assert();
        assert_eq!(verb_of(&["/run/x"]).as_deref(), Some("stat"));
        assert_eq!(verb_of(&["--json", "/run/x"]).as_deref(), Some("stat"));
        assert_eq!(verb_of(&["/run/x", "--json"]).as_deref(), Some("stat"));
        assert_eq!(verb_of(&["x"]).as_deref(), Some("stat"));
        assert_eq!(verb_of(&["list", "/run/x"]).as_deref(), Some("list"));
        assert_eq!(verb_of(&["--json", "list", "/run/x"]).as_deref(), Some("list"));
        assert_eq!(verb_of(&["lsit", "/run/x"]), None);
        assert_eq!(verb_of(&[]), None);
    }

    #[test]
    fn an_id_is_the_short_one_or_the_whole() {
        assert_eq!(id("0123ABCD"), Ok(Wanted::Short("0123abcd".to_owned())));
        assert_eq!(id("01ff"), Ok(Wanted::Whole(vec![1, 255])));
        for bad in ["", "0", "123", "xy", "0123abcg"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
