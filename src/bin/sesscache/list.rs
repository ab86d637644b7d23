//! `list`: a line per session or record. Streams: a million of them take no more memory than a few.

use std::io::Write;

use serde_json::{json, Value};
use sesscache::inspect::{self, flags, Inspect, Position, Record};

use crate::arguments::List;
use crate::clients;
use crate::failure::{Failure, Outcome};
use crate::only::{Filter, BATCH};
use crate::output::Output;
use crate::units::{bytes, short_seconds};

pub fn run(arguments: &List, json: bool) -> Result<Outcome, Failure> {
    if arguments.clients {
        return clients::run(arguments, json);
    }
    let mut inspect = Inspect::open(&arguments.look.path, None)?;
    let filter = Filter::of(&inspect, &arguments.only);
    let mut out = Output::new();
    let bound = arguments.expires_within.map(|time| inspect::now().saturating_add(time.as_secs()));
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    if !json {
        writeln!(out, "{}", out.bold(HEADING))?;
    }
    let mut position = Position::default();
    while left > 0 {
        let records = inspect.batch(&mut position, BATCH)?;
        if records.is_empty() {
            break;
        }
        let now = inspect::now();
        for record in records {
            let expires = record.header.map(|header| u64::from(header.expires));
            // What has expired and not yet left is returned to nobody.
            if !record.alive || !filter.takes(&record) || expires.zip(bound).is_some_and(|(at, bound)| at > bound) {
                continue;
            }
            if json {
                out.json(&as_json(&record, now))?;
            } else {
                line(&record, now, &mut out)?;
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    out.flush()?;
    if let Some(damage) = inspect.damage() {
        eprintln!("sesscache: the store is damaged ({damage}): what was stored in it is lost");
    }
    Ok(Outcome::fine_if(inspect.damage().is_none()))
}

const HEADING: &str = "id        protocol  server name  namespace       age      left       size";

fn line(record: &Record, now: u64, out: &mut Output) -> Result<(), Failure> {
    let id = record.short_id();
    let size = bytes(record.bytes as u64);
    let Some(header) = &record.header else {
        writeln!(out, "{id}  {:<8}  {:<11}  {:<9}  {:>8}  {:>8}  {size:>9}", "damaged", "-", "-", "-", "-")?;
        return Ok(());
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    writeln!(
        out,
        "{id}  {:<8}  {:<11}  {:<9}  {:>8}  {:>8}  {size:>9}",
        protocol(record).unwrap_or("record"),
        or_dash(server_name(record).map(|name| name[..8].to_owned())),
        or_dash(namespace(record)),
        or_dash(age(record, now).map(short_seconds)),
        short_seconds(u64::from(header.expires).saturating_sub(now)),
    )?;
    Ok(())
}

/// What can be said of a record without opening it.
pub fn as_json(record: &Record, now: u64) -> Value {
    let header = record.header.as_ref();
    let kind = match header {
        None => "damaged",
        Some(_) if record.is_client() => "client",
        Some(_) if record.is_session() => "session",
        Some(_) => "record",
    };
    json!({
        "id": record.short_id(),
        "kind": kind,
        "protocol": protocol(record),
        "server_name": server_name(record),
        "namespace": namespace(record),
        "age": age(record, now),
        "expires": header.map(|header| header.expires),
        "left": header.map(|header| u64::from(header.expires).saturating_sub(now)),
        "bytes": record.bytes,
        "generation": record.generation,
    })
}

/// The protocol of a session by its usual name.
pub fn protocol(record: &Record) -> Option<&'static str> {
    let header = record.header.filter(|_| record.is_session())?;
    Some(match header.protocol {
        _ if header.has(flags::QUIC) => "QUIC",
        0x0300 => "SSL 3",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 => "TLS 1.3",
        _ => "other",
    })
}

/// The hash of the server name.
pub fn server_name(record: &Record) -> Option<String> {
    let hash = record.header.as_ref().map(|header| header.server_name).filter(|hash| *hash != 0)?;
    Some(format!("{hash:016x}"))
}

/// The hash of the namespace.
pub fn namespace(record: &Record) -> Option<String> {
    let hash = record.header.as_ref().map(|header| header.namespace).filter(|hash| *hash != 0)?;
    Some(format!("{hash:08x}"))
}

/// Seconds since the last full handshake.
pub fn age(record: &Record, now: u64) -> Option<u64> {
    let at = record.header.as_ref().map(|header| header.full_handshake).filter(|at| *at != 0)?;
    Some(now.saturating_sub(at.into()))
}
