//! What the program is called with. The help, the manual page and the completions are made from this.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

mod values;

pub use self::values::Wanted;
use self::values::{id, interval, unit_name};
use crate::units;

/// Shows and manages a store of TLS sessions.
///
/// Works on a live store without disturbing it. Commands that read create nothing and change nothing.
#[derive(Parser)]
#[command(name = "sesscache", version, about, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "`sesscache PATH` is short for `sesscache stat PATH`.\n\
    Exit status: 0 healthy; 1 unhealthy or not found; 2 wrong usage or a system error.")]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Print JSON; its fields have the names of the counters
    #[arg(long, global = true)]
    pub json: bool,
}

/// The verbs, in the order of the manual page.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the store on one screen
    ///
    /// Shows how many handshakes resumed, since the store was created and over the last minute, sessions, capacity, misses
    /// and failures by reason, attached processes, and warnings. Exits with status 1 when there is a warning.
    Stat(Look),
    /// Show rates continuously
    ///
    /// Draws charts on a terminal until you press q or the terminal is gone; elsewhere, prints a line per interval. Of the keys, ? prints
    /// a list.
    Watch(Watch),
    /// List the stores of this host
    ///
    /// Shows each store that a process has open, and these processes, as far as this user may look into them. A path is that of the
    /// process, which may be in a container.
    Ls,
    /// List the sessions and records
    ///
    /// Prints one line for each: 8 digits of a hash of the id, protocol, hashes of the server name and the namespace, age,
    /// time left and size. With --json, prints one JSON object per line. The list is not a snapshot: it may or may not
    /// contain what is stored or removed while it runs.
    List(List),
    /// Show one session or record
    ///
    /// Prints key material only with --secrets.
    Show(Show),
    /// Delete one session or record, in every process
    Remove(RemoveArguments),
    /// Delete every session and record, in every process, at once
    ///
    /// Makes a new sealing key first, so that nobody can read what remains in freed pages or backups. A key file named
    /// with --key belongs to the operator and stays.
    ///
    /// With --namespace or --server-name, deletes only the sessions and records of these, one after the other, and the keys stay: a
    /// leaked certificate costs the sessions of one name.
    Flush(FlushArguments),
    /// Delete expired sessions and records
    ///
    /// Never needed: storing a session also deletes expired ones.
    Sweep(SweepArguments),
    /// Open every record with the sealing keys
    ///
    /// Exits with status 1 when a record is damaged. Counts separately the records that cannot be opened without the name
    /// of their namespace.
    Check(Check),
    /// Check owner, modes, file system, space, limits and versions
    ///
    /// Prints the command that fixes each problem. Exits with status 1 when there is a problem.
    /// With --pid, looks at a running process instead: whether it has the configuration module of OpenSSL, and what that has
    /// attached.
    Doctor(Doctor),
    /// Print metrics for Prometheus
    ///
    /// Of several stores, each metric has a sample for each, with its label path. sesscache_up is 0 for one that cannot be read;
    /// the exit status is 1 then.
    Metrics(Metrics),
    /// Measure put, get and take on this machine and file system
    ///
    /// Creates a scratch store beside PATH and deletes it afterwards; never touches PATH itself. PATH need not exist, but
    /// its parent directory must.
    Bench(Bench),
    /// Compare a server of four processes with and without the cache
    ///
    /// Starts a server and clients on the loopback interface; takes about 15 seconds. With --json, prints an object:
    /// workers, processors, key, connections, and rows of protocol, cache, offered, resumed, resumed_elsewhere (by a
    /// process other than the one that made the session), s_client_offered, s_client_resumed, and server_cpu_us (the
    /// server's CPU time per connection in microseconds).
    Demo(Demo),
    /// Give the configuration module of OpenSSL to a systemd service
    ///
    /// Writes two files and shows them: /etc/sesscache/NAME.cnf, which names the module after the system's openssl.cnf, and a
    /// drop-in that gives this file and a directory to the service. The server itself need not know of sesscache. A file that
    /// is there and differs is not overwritten.
    Unit(UnitArguments),
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
    /// File with the sealing keys, if it is not PATH/key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
}

/// Which namespaces can be opened besides those that the store knows.
#[derive(Args)]
pub struct Namespaces {
    /// Also open the records of this namespace; may be given several times
    ///
    /// Rarely needed. The store can open the records of up to 31 namespaces without their names. The output says when a
    /// name is needed.
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
    /// Stop after N readings
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Arguments of `list`.
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub look: Look,
    #[command(flatten)]
    pub only: Only,
    /// List the servers with which clients have sessions, and why some sessions of one server do not serve all its clients. Reads
    /// the key file
    #[arg(long, conflicts_with_all = ["expires_within", "limit"])]
    pub clients: bool,
    /// List only what expires within this time, such as 90s, 5m or 2h
    #[arg(long, value_name = "TIME", value_parser = units::parse_time)]
    pub expires_within: Option<Duration>,
    /// List at most N
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
    /// Also print the sealed content: a session with its master key, or an application's data
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
    /// like `openssl sess_id -text`
    Text,
    /// for `openssl s_client -sess_in`
    Pem,
}

/// Arguments of `remove`.
#[derive(Args)]
pub struct RemoveArguments {
    #[command(flatten)]
    pub change: Change,
    /// The 8 digits that `list` shows, or the whole id in hexadecimal
    #[arg(value_parser = id)]
    pub id: Wanted,
    #[command(flatten)]
    pub only: Only,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Arguments of `flush`.
#[derive(Args)]
pub struct FlushArguments {
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub only: Only,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Which sessions and records are meant.
#[derive(Args)]
pub struct Only {
    /// Only those of this namespace, by the value of namespace= in the servers' options
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only those of this server name, such as www.example.org
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

/// Whether anything is done.
#[derive(Args)]
pub struct DryRun {
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `sweep`.
#[derive(Args)]
pub struct SweepArguments {
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub dry_run: DryRun,
    /// Delete at most N
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
    /// Directory of the store
    #[arg(value_hint = ValueHint::DirPath, required_unless_present = "pid", conflicts_with = "pid")]
    pub path: Option<PathBuf>,
    /// File with the sealing keys, if it is not PATH/key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "pid")]
    pub key: Option<PathBuf>,
    /// Look at this process
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// Arguments of `metrics`.
#[derive(Args)]
pub struct Metrics {
    /// Directories of the stores
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::DirPath)]
    pub paths: Vec<PathBuf>,
    /// The text format
    #[arg(long, value_name = "FORMAT", default_value = "prometheus")]
    pub format: MetricsFormat,
    /// Write to FILE, replacing it atomically, for the textfile collector
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "listen")]
    pub output: Option<PathBuf>,
    /// Serve GET /metrics at this address until interrupted
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
    /// Bytes per session
    #[arg(long, value_name = "N", default_value = "140", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub bytes: u64,
}

/// Arguments of `demo`.
#[derive(Args)]
pub struct Demo {
    /// Connections per row; by default $CONNECTIONS, or 2000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub connections: Option<u32>,
    /// The server's key: rsa:BITS or ec; by default $KEY, or rsa:2048
    #[arg(long, value_name = "KIND")]
    pub key: Option<String>,
}

/// Arguments of `unit`.
#[derive(Args)]
pub struct UnitArguments {
    /// Name of the service, such as lighttpd
    #[arg(value_parser = unit_name)]
    pub name: String,
    /// Options of the cache; a server that changes its user itself needs owner=USER
    #[arg(long, value_name = "OPTIONS")]
    pub options: Option<String>,
    /// Directory of the store, by default /run/sesscache-NAME/tls; %p stands for the program's name
    #[arg(long, value_name = "PATH")]
    pub directory: Option<String>,
    /// Attach only these programs of the service, by the names of their executables
    #[arg(long, value_name = "NAMES")]
    pub programs: Option<String>,
    /// Session id context, for programs that draw a random one
    #[arg(long, value_name = "TEXT")]
    pub session_id_context: Option<String>,
    /// Attach also where the program has switched its session cache off
    #[arg(long)]
    pub force: bool,
    /// The module, if it is not installed with this program
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub module: Option<PathBuf>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete what was written
    #[arg(long, conflicts_with_all = ["options", "directory", "programs", "session_id_context", "force", "module", "dry_run"])]
    pub undo: bool,
    /// Write below DIR, as for a package or an image
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
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
}
