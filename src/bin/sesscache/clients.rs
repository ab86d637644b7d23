//! `list --clients`: for each server, the sessions that clients have with it, and in what clients differ that share none.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;
use sesscache::inspect::{self, Contents, Inspect, CLIENT_PARTS};

use crate::arguments::List;
use crate::failure::{Failure, Outcome};
use crate::list;
use crate::only::{collect, Filter};
use crate::output::Output;
use crate::units::short_seconds;

type Parts = [u32; CLIENT_PARTS.len()];

/// The sessions that serve clients of the same kind.
#[derive(Default)]
struct Shared {
    sessions: u64,
    protocols: Vec<&'static str>,
    expires: u64,
}

pub fn run(arguments: &List, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.look.path, None)?;
    let filter = Filter::of(&inspect, &arguments.only);
    let mut opener = inspect.opener(&[])?;
    let mut servers: BTreeMap<String, BTreeMap<Parts, Shared>> = BTreeMap::new();
    let mut unreadable = 0_u64;
    for record in collect(&mut inspect, |record| record.alive && record.is_client() && filter.takes(record))? {
        let peer = match inspect.open_record(&record, &mut opener)? {
            Contents::Plain(plain) => record.peer(&plain),
            Contents::Gone => continue,
            Contents::OtherNamespace | Contents::Damaged(_) => None,
        };
        let (Some((peer, parts)), Some(protocol)) = (peer, list::protocol(&record)) else {
            unreadable += 1;
            continue;
        };
        let kind = servers.entry(peer).or_default().entry(parts).or_default();
        kind.sessions += 1;
        kind.expires = kind.expires.max(record.header.map_or(0, |header| u64::from(header.expires)));
        if !kind.protocols.contains(&protocol) {
            kind.protocols.push(protocol);
        }
    }
    let mut out = Output::new();
    if !json {
        writeln!(
            out,
            "{}",
            out.bold("server                            sessions  protocol          left      differ in")
        )?;
    }
    for (peer, kinds) in &servers {
        let differ = differences(kinds.keys());
        for kind in kinds.values() {
            let left = kind.expires.saturating_sub(inspect::now());
            let protocols = kind.protocols.join(", ");
            if json {
                out.json(&json!({
                    "peer": peer, "sessions": kind.sessions, "protocols": kind.protocols, "left": left, "differ_in": differ,
                }))?;
            } else {
                let differ = if differ.is_empty() { "-".to_owned() } else { differ.join("; ") };
                writeln!(
                    out,
                    "{peer:<32}  {:>8}  {protocols:<16}  {:<8}  {differ}",
                    kind.sessions,
                    short_seconds(left)
                )?;
            }
        }
    }
    out.flush()?;
    if unreadable > 0 {
        eprintln!("sesscache: {unreadable} sessions of clients do not open: they are damaged, or their key or namespace is unknown");
    }
    Ok(Outcome::fine_if(inspect.damage().is_none()))
}

/// What is not the same in all kinds of one server.
fn differences<'a>(mut kinds: impl Iterator<Item = &'a Parts>) -> Vec<&'static str> {
    let Some(first) = kinds.next() else { return Vec::new() };
    let mut differ = [false; CLIENT_PARTS.len()];
    for other in kinds {
        for (differs, (a, b)) in differ.iter_mut().zip(first.iter().zip(other)) {
            *differs |= a != b;
        }
    }
    CLIENT_PARTS.iter().zip(differ).filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
