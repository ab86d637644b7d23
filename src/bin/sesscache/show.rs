//! `show`: one session or record; what is sealed only on request.

use std::io::Write;

use serde_json::Value;
use sesscache::inspect::{self, flags, Contents, Inspect, Opener, Record, Secret};
use sesscache::{Error, Status};

use crate::arguments::{SessionFormat, Show, Wanted};
use crate::check;
use crate::failure::{Failure, Outcome};
use crate::list;
use crate::only::collect;
use crate::output::Output;
use crate::units::{bytes, hex, seconds};

pub fn run(arguments: &Show, json: bool) -> Result<Outcome, Failure> {
    let mut inspect = Inspect::open(&arguments.change.look.path, arguments.change.key.as_deref())?;
    let found = find(&mut inspect, &arguments.id)?;
    let mut opener = match arguments.secrets {
        true => Some(inspect.opener(&arguments.namespaces.names)?),
        false => None,
    };
    let mut out = Output::new();
    let (mut whole, mut named) = (true, true);
    for record in &found {
        let opened = match &mut opener {
            Some(opener) => Some(open(&mut inspect, record, opener)?),
            None => None,
        };
        whole &= !matches!(opened, Some(Err(NotShown { damage: true, .. })));
        named &= !matches!(opened, Some(Err(NotShown { damage: false, .. })));
        if json {
            out.json_pretty(&as_json(record, opened.as_ref(), arguments.format))?;
        } else {
            print(record, opened.as_ref(), arguments.format, &mut out)?;
        }
    }
    out.flush()?;
    Ok(if named { Outcome::fine_if(whole) } else { Outcome::Misused })
}

/// The records that are meant: several when their short ids are the same. None is a failure.
pub fn find(inspect: &mut Inspect, wanted: &Wanted) -> Result<Vec<Record>, Failure> {
    let found = collect(inspect, |record| match wanted {
        Wanted::Short(digits) => record.short_id() == *digits,
        Wanted::Whole(id) => record.id == *id,
    })?;
    if found.is_empty() {
        let path = inspect.path().display();
        return Err(Error::new(Status::NotFound, format!("{path} has no such session or record")).into());
    }
    Ok(found)
}

type OpenStore = Result<Secret, NotShown>;

/// Why there is nothing to show.
struct NotShown {
    why: String,
    /// The record is damaged or gone; otherwise an argument is missing.
    damage: bool,
}

fn open(inspect: &mut Inspect, record: &Record, opener: &mut Opener) -> Result<OpenStore, Failure> {
    let damage = |why: &str| Err(NotShown { why: why.to_owned(), damage: true });
    Ok(match inspect.open_record(record, opener)? {
        Contents::Plain(secret) => Ok(secret),
        Contents::Gone => damage("it no longer exists"),
        Contents::OtherNamespace => {
            let hash = list::namespace(record).unwrap_or_default();
            let why = format!("it belongs to the namespace {hash}, whose name is needed: {}", check::NAME_IT);
            Err(NotShown { why, damage: false })
        }
        Contents::Damaged(why) => damage(why),
    })
}

fn as_json(record: &Record, opened: Option<&OpenStore>, format: SessionFormat) -> Value {
    let mut value = list::as_json(record, inspect::now());
    let Value::Object(fields) = &mut value else { return value };
    if let Some(header) = &record.header {
        fields.insert("openssl".into(), header.openssl.into());
        fields.insert("client_auth".into(), header.has(flags::CLIENT_AUTH).into());
        fields.insert("id_context".into(), header.has(flags::ID_CONTEXT).into());
        fields.insert("key".into(), format!("{:04x}", header.key_number).into());
    }
    match opened {
        None => {}
        Some(Err(NotShown { why, damage })) => {
            fields.insert(if *damage { "damage" } else { "not_shown" }.into(), why.clone().into());
        }
        Some(Ok(plain)) => {
            fields.insert("whole_id".into(), hex(&record.id).into());
            match printed(record, plain, format) {
                Some((name, text)) => fields.insert(name.into(), String::from_utf8_lossy(text.bytes()).into()),
                None => fields.insert("data".into(), hex(plain.bytes()).into()),
            };
        }
    }
    value
}

fn printed(record: &Record, plain: &Secret, format: SessionFormat) -> Option<(&'static str, Secret)> {
    if !record.is_session() {
        return None;
    }
    match format {
        SessionFormat::Text => record.words(plain).map(|text| ("text", text)),
        SessionFormat::Pem => record.pem(plain).map(|text| ("pem", text)),
    }
}

fn print(record: &Record, opened: Option<&OpenStore>, format: SessionFormat, out: &mut Output) -> Result<(), Failure> {
    let now = inspect::now();
    writeln!(out, "{}", out.bold(&record.short_id()))?;
    match &record.header {
        None => writeln!(out, "kind             damaged: it has no header that can be read")?,
        Some(header) => {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
            let yes = |yes| if yes { "yes" } else { "no" };
            let kind = match record.is_session() {
                true if record.is_client() => "a client's session with a server",
                true => "session",
                false => "an application's own record",
            };
            writeln!(out, "kind             {kind}")?;
            if let Some(protocol) = list::protocol(record) {
                writeln!(out, "protocol         {protocol}, written by OpenSSL {}", header.openssl)?;
                writeln!(out, "client auth      {}", yes(header.has(flags::CLIENT_AUTH)))?;
                writeln!(out, "id context       {}", yes(header.has(flags::ID_CONTEXT)))?;
                writeln!(out, "server name      {}", or_none(list::server_name(record)))?;
            }
            writeln!(out, "namespace        {}", or_none(list::namespace(record)))?;
            if let Some(age) = list::age(record, now) {
                writeln!(out, "full handshake   {} ago", seconds(age))?;
            }
            let expires = u64::from(header.expires);
            match expires.checked_sub(now) {
                Some(left) if left > 0 => writeln!(out, "expires          in {}", seconds(left))?,
                _ => writeln!(out, "expires          {} ago", seconds(now - expires))?,
            }
            writeln!(out, "sealing key      {:04x}", header.key_number)?;
        }
    }
    writeln!(out, "size             {}", bytes(record.bytes as u64))?;
    match opened {
        None => {}
        Some(Err(NotShown { why, .. })) => writeln!(out, "not shown        {why}")?,
        Some(Ok(plain)) => {
            writeln!(out, "whole id         {}", hex(&record.id))?;
            match printed(record, plain, format) {
                Some((_, text)) => out.write_all(text.bytes())?,
                None => writeln!(out, "data             {}", hex(plain.bytes()))?,
            }
        }
    }
    Ok(())
}
