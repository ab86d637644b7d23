//! The option string: `"capacity=256MiB ttl=2h sni=strict"`, in the form of libpq's connection strings.
//!
//! One table holds every option: its name, its default, what it accepts and what it means. Parsing is pure.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

mod values;

use self::values::{check_separator, on, one_of, size, time, word};
use crate::status::{Error, Result};

/// Whether a session is bound to the server name it was made for (RFC 6066 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sni {
    /// It resumes under that name only.
    Strict,
    /// It resumes under any name.
    Off,
}

/// Which TLS 1.3 tickets resume once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SingleUse {
    /// Those that a client offers with early data (RFC 8446 section 8.1).
    EarlyData,
    /// All.
    Always,
    /// None: early data may be replayed.
    Off,
}

/// Who makes the tickets of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tickets {
    /// The cache: ids, also in TLS 1.3.
    Ids,
    /// The host: OpenSSL's stateless tickets, with the host's keys and callbacks. Ids serve clients of TLS 1.2 that offer no tickets.
    Host,
}

/// Which of OpenSSL's removals reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Remove {
    /// Those that follow a TLS error (RFC 5246 section 7.2.2), not a mere lost connection.
    Failures,
    /// Every one.
    OpenSsl,
    /// None.
    Never,
}

/// The options of a cache, most easily made from a string: `"capacity=256MiB ttl=2h".parse()`. `None` means: what the store
/// has, or else the default. `OPTIONS` in the crate says what each option takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Hard limit of the store in bytes.
    pub capacity: Option<u64>,
    /// Life of a session from its last full handshake; `None` takes the SSL_CTX's timeout.
    pub ttl: Option<Duration>,
    /// Mode of the files.
    pub mode: u32,
    /// User who owns the files.
    pub owner: Option<String>,
    /// Group of the files.
    pub group: Option<String>,
    /// Sessions of one namespace never resume in another.
    pub namespace: String,
    /// Binding to the server name.
    pub sni: Sni,
    /// Single use of TLS 1.3 tickets.
    pub single_use: SingleUse,
    /// Who makes the tickets of clients.
    pub tickets: Tickets,
    /// Which of OpenSSL's removals reach the store.
    pub remove: Remove,
    /// Longest wait for another writer.
    pub deadline: Duration,
    /// Memory for decoded sessions in each process, in bytes.
    pub decoded: usize,
    /// Maps the store read-only and writes with system calls.
    pub guard: Option<bool>,
    /// File with the sealing keys, if it is not in the directory.
    pub key: Option<PathBuf>,
    /// Reader slots.
    pub readers: Option<u32>,
    /// Bytes of memory for sessions that could not be stored; 0 for none.
    pub local: Option<u64>,
    /// Each process opens the store once.
    pub hold: bool,
    /// The store is meant to be on a disk.
    pub disk: bool,
    /// Tickets that clients keep for one server.
    pub client_tickets: usize,
    /// What stands for a client's rules of trust that OpenSSL does not show.
    pub policy: Option<String>,
}

/// The capacity of a store when no option gives one.
pub const DEFAULT_CAPACITY: u64 = 64 << 20;
/// The reader slots of a store when no option gives them.
pub const DEFAULT_READERS: u32 = 2048;
/// The bytes of memory for sessions that could not be stored when no option gives them: as many sessions as OpenSSL's own cache
/// has by default, 20,480 (SSL_SESSION_CACHE_MAX_SIZE_DEFAULT).
pub const DEFAULT_LOCAL: u64 = 8 << 20;
/// The least and the greatest `local`.
pub const LOCAL_LIMITS: (u64, u64) = (64 << 10, 1 << 30);
/// The least and the greatest `capacity`.
pub const CAPACITY_LIMITS: (u64, u64) = (1 << 20, 64 << 30);
/// The least and the greatest `readers`.
pub const READERS_LIMITS: (u32, u32) = (16, 65_536);
/// Sessions older than this are of no use to any client: ids from further ahead are refused as forged.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 86_400);

impl Default for Options {
    fn default() -> Self {
        Options {
            capacity: None,
            ttl: None,
            mode: 0o600,
            owner: None,
            group: None,
            namespace: String::new(),
            sni: Sni::Strict,
            single_use: SingleUse::EarlyData,
            tickets: Tickets::Ids,
            remove: Remove::Failures,
            deadline: Duration::from_millis(5),
            decoded: 4 << 20,
            guard: None,
            key: None,
            readers: None,
            local: None,
            hold: false,
            disk: false,
            client_tickets: 8,
            policy: None,
        }
    }
}

/// One row of the table of options.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptionRow {
    /// What precedes the `=`.
    pub name: &'static str,
    /// What holds without it, in words.
    pub default: &'static str,
    /// What may follow the `=`, in words.
    pub accepts: &'static str,
    /// What it does.
    pub meaning: &'static str,
    set: fn(&mut Options, &str) -> Option<()>,
}

/// Every option.
pub const TABLE: &[OptionRow] = &[
    OptionRow {
        name: "capacity",
        default: "64MiB, or a quarter of the memory limit",
        accepts: "a size from 1MiB to 64GiB, such as 256MiB",
        meaning: "Hard limit of the store. A full store evicts the sessions that expire first.",
        set: |o, v| {
            o.capacity = Some(size(v).filter(|n| (CAPACITY_LIMITS.0..=CAPACITY_LIMITS.1).contains(n))?);
            Some(())
        },
    },
    OptionRow {
        name: "ttl",
        default: "the SSL_CTX's timeout",
        accepts: "a time from 1s to 366d, such as 90s, 15m, 2h or 1d",
        meaning: "Life of a session. It begins with the last full handshake, and no resumption extends it.",
        set: |o, v| {
            o.ttl = Some(time(v).filter(|t| t.subsec_nanos() == 0 && *t >= Duration::from_secs(1) && *t <= MAX_TTL)?);
            Some(())
        },
    },
    OptionRow {
        name: "mode",
        default: "0600",
        accepts: "0600, 0640 or 0660",
        meaning: "Mode of the files. The directory gets the matching search bits.",
        set: |o, v| {
            o.mode = match v {
                "0600" | "600" => 0o600,
                "0640" | "640" => 0o640,
                "0660" | "660" => 0o660,
                _ => return None,
            };
            Some(())
        },
    },
    OptionRow {
        name: "owner",
        default: "the user that opens it first",
        accepts: "the name or number of a user that exists, such as www-data",
        meaning: "Owner of the files. root can thus open a cache for workers that run as another user.",
        set: |o, v| word(v).map(|w| o.owner = Some(w)),
    },
    OptionRow {
        name: "group",
        default: "the owner's",
        accepts: "the name or number of a group that exists, such as tls",
        meaning: "Group of the files, for use with mode=0640 or mode=0660.",
        set: |o, v| word(v).map(|w| o.group = Some(w)),
    },
    OptionRow {
        name: "namespace",
        default: "empty",
        accepts: "up to 255 bytes of text",
        meaning: "A session made in one namespace never resumes in another.",
        set: |o, v| (v.len() <= 255).then(|| o.namespace = v.to_owned()),
    },
    OptionRow {
        name: "sni",
        default: "strict",
        accepts: "strict or off",
        meaning: "strict: a session resumes only under the server name it was made for (RFC 6066). off disables the check.",
        set: |o, v| one_of(v, &[("strict", Sni::Strict), ("off", Sni::Off)]).map(|chosen| o.sni = chosen),
    },
    OptionRow {
        name: "single_use",
        default: "early_data",
        accepts: "early_data, always or off",
        meaning: "Which TLS 1.3 tickets resume once only, over all processes: those offered with early data, all, or none.",
        set: |o, v| one_of(v, &[("early_data", SingleUse::EarlyData), ("always", SingleUse::Always), ("off", SingleUse::Off)]).map(|chosen| o.single_use = chosen),
    },
    OptionRow {
        name: "tickets",
        default: "ids",
        accepts: "ids or host",
        meaning: "ids: clients get ids, also in TLS 1.3. host: OpenSSL's tickets stay as the program has them, with its keys and callbacks and without early data; ids serve clients of TLS 1.2 that offer no tickets.",
        set: |o, v| one_of(v, &[("ids", Tickets::Ids), ("host", Tickets::Host)]).map(|chosen| o.tickets = chosen),
    },
    OptionRow {
        name: "remove",
        default: "failures",
        accepts: "failures, openssl or never",
        meaning: "Which of OpenSSL's removals delete a session from the store: those after a TLS error, all, or none.",
        set: |o, v| one_of(v, &[("failures", Remove::Failures), ("openssl", Remove::OpenSsl), ("never", Remove::Never)]).map(|chosen| o.remove = chosen),
    },
    OptionRow {
        name: "deadline",
        default: "5ms",
        accepts: "a time from 0ms to 10s, such as 5ms",
        meaning: "Longest wait for another writer. Past it the session is not stored, and the handshake goes on.",
        set: |o, v| time(v).filter(|t| *t <= Duration::from_secs(10)).map(|t| o.deadline = t),
    },
    OptionRow {
        name: "decoded",
        default: "4MiB",
        accepts: "0, or a size up to 1GiB, such as 4MiB",
        meaning:
            "Memory of each process for decoded sessions, one of each kind: others of the kind are made without parsing; with a client certificate, those of the same login. 0 keeps none.",
        set: |o, v| {
            let bytes = if v == "0" { Some(0) } else { size(v) };
            bytes.filter(|n| *n <= 1 << 30).map(|n| o.decoded = n as usize)
        },
    },
    OptionRow {
        name: "guard",
        default: "off",
        accepts: "on or off",
        meaning: "on maps the store read-only, which protects it from stray writes of the program. Writes are then slower.",
        set: |o, v| on(v).map(|on| o.guard = Some(on)),
    },
    OptionRow {
        name: "key",
        default: "PATH/key",
        accepts: "an absolute path",
        meaning: "File with the sealing keys, 32 bytes each. The first one seals, all of them open.",
        set: |o, v| v.starts_with('/').then(|| o.key = Some(PathBuf::from(v))),
    },
    OptionRow {
        name: "readers",
        default: "2048",
        accepts: "a number from 16 to 65536",
        meaning: "Number of threads, over all processes, that can look up without waiting for writers.",
        set: |o, v| {
            let n = v.parse().ok().filter(|n| (READERS_LIMITS.0..=READERS_LIMITS.1).contains(n))?;
            o.readers = Some(n);
            Some(())
        },
    },
    OptionRow {
        name: "local",
        default: "8MiB",
        accepts: "a size from 64KiB to 1GiB, such as 8MiB, or off",
        meaning: "Memory for sessions that could not be stored, shared with child processes: they resume there.",
        set: |o, v| {
            let within = |n: &u64| (LOCAL_LIMITS.0..=LOCAL_LIMITS.1).contains(n);
            o.local = Some(if v == "off" { 0 } else { size(v).filter(within)? });
            Some(())
        },
    },
    OptionRow {
        name: "hold",
        default: "off",
        accepts: "on or off",
        meaning: "on: each process opens the store at its first use and nothing by path later. See sesscache_hold(3).",
        set: |o, v| on(v).map(|on| o.hold = on),
    },
    OptionRow {
        name: "disk",
        default: "off",
        accepts: "on or off",
        meaning: "on: no warning that the directory is on a disk, where handshakes wait while the file system is frozen or slow.",
        set: |o, v| on(v).map(|on| o.disk = on),
    },
    OptionRow {
        name: "client_tickets",
        default: "8",
        accepts: "a number from 1 to 64",
        meaning: "Tickets of TLS 1.3 that clients keep for one server. Each is used once, over all processes.",
        set: |o, v| v.parse().ok().filter(|n| (1..=64).contains(n)).map(|n| o.client_tickets = n),
    },
    OptionRow {
        name: "policy",
        default: "none",
        accepts: "1 to 255 bytes of text",
        meaning:
            "Stands for a client's rules of trust that OpenSSL does not show, such as a verify callback or DANE: sessions resume only under the same text.",
        set: |o, v| (1..=255).contains(&v.len()).then(|| o.policy = Some(v.to_owned())),
    },
];

impl Options {
    /// Reads `name=value` pairs separated by white space. A value with spaces stands in single quotes, in which a
    /// backslash makes the next character literal. `name?=value` is a default: it counts where no `name=value` is.
    ///
    /// # Errors
    /// [`Status::Invalid`](crate::Status::Invalid), with the option and what it takes.
    pub fn parse(text: &str) -> Result<Options> {
        let mut options = Options::default();
        let mut seen = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
            let (name, is_default) = rest[..end].strip_suffix('?').map_or((&rest[..end], false), |name| (name, true));
            let row = TABLE.iter().find(|row| row.name == name).ok_or_else(|| unknown(name))?;
            if seen.contains(&(name, is_default)) {
                return Err(Error::invalid(format!("option '{name}' is given twice")).remedy("keep one"));
            }
            seen.push((name, is_default));
            let Some(after) = rest[end..].strip_prefix('=') else {
                let remedy = format!("write {name}=..., with no space around the =: {}", row.accepts);
                return Err(Error::invalid(format!("option '{name}' has no value")).remedy(remedy));
            };
            let (value, left) = value(name, after)?;
            if !after.starts_with('\'') {
                check_separator(name, &value, left)?;
            }
            let mut unused = Options::default();
            let counts = !(is_default && seen.contains(&(name, false)));
            (row.set)(if counts { &mut options } else { &mut unused }, &value).ok_or_else(|| {
                Error::invalid(format!("option {name}='{value}' is not acceptable"))
                    .remedy(format!("{name} takes {}", row.accepts))
            })?;
            rest = left.trim_start();
        }
        Ok(options)
    }
}

impl FromStr for Options {
    type Err = Error;

    fn from_str(text: &str) -> Result<Options> {
        Options::parse(text)
    }
}

fn unknown(name: &str) -> Error {
    let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    let shown: String = name.chars().take(40).collect();
    Error::invalid(format!("unknown option '{shown}'")).remedy(format!("the options are {}", names.join(", ")))
}

/// Splits one value, bare or quoted, off the front of `text`.
fn value<'a>(name: &str, text: &'a str) -> Result<(String, &'a str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, literal)| literal)),
            '\'' => {
                let rest = &quoted[at + 1..];
                if rest.starts_with(|c: char| !c.is_whitespace()) {
                    let error = Error::invalid(format!("option '{name}': a value goes on after its closing quote"));
                    return Err(error.remedy("put a space after the quote"));
                }
                return Ok((out, rest));
            }
            _ => out.push(c),
        }
    }
    Err(Error::invalid(format!("option '{name}': the closing quote is missing")))
}

#[cfg(test)]
mod tests;
