//! Servers of Debian with their own means and with sesscache: who is resumed, and what that costs.
//!
//! `make servers` installs the servers, builds what makes them gain sesscache, and runs this. It prints one table, and
//! writes it to the file named by `--json`. `--quick` takes a minute or two and shows that everything works; its CPU
//! figures are rough. Names of servers select some of them. Nothing of what it starts outlives it, also on Ctrl-C.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod cost;
mod hitch;
mod httpd;
mod instance;
mod lighttpd;
mod live;
mod machine;
mod nginx;
mod share;
mod subject;
mod table;
mod trouble;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use serde_json::json;

use crate::client::Tls;
use crate::cost::Effort;
use crate::instance::Instance;
use crate::machine::{certificate, free_port, is_root, open_to_all, Result, Scratch};
use crate::share::Errors;
use crate::subject::{Cache, Site, Subject};
use crate::table::Row;

/// Every server that the harness knows.
fn subjects() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(nginx::Nginx::default()),
        Box::new(httpd::Httpd::default()),
        Box::new(lighttpd::Lighttpd::default()),
        Box::new(hitch::Hitch::default()),
    ]
}

/// How much to do.
struct Plan {
    clients: usize,
    effort: Effort,
    /// Live sessions for the comparison with a server's own cache.
    live: &'static [usize],
    live_effort: Effort,
}

const WHOLE: Plan = Plan {
    clients: 200,
    effort: Effort { turns: 100, block: 20 },
    live: &[10_000, 100_000],
    live_effort: Effort { turns: 600, block: 20 },
};
const QUICK: Plan = Plan {
    clients: 30,
    effort: Effort { turns: 10, block: 10 },
    live: &[1_000],
    live_effort: Effort { turns: 48, block: 10 },
};

/// What the command line asks for.
struct Arguments {
    quick: bool,
    json: Option<PathBuf>,
    names: Vec<String>,
}

impl Arguments {
    fn read() -> Result<Arguments> {
        let mut found = Arguments { quick: false, json: None, names: Vec::new() };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => found.quick = true,
                "--json" => found.json = Some(words.next().ok_or("--json needs the name of a file")?.into()),
                // Cargo adds it.
                "--bench" => {}
                name if !name.starts_with('-') => found.names.push(name.to_owned()),
                _ => {
                    return Err(
                        format!("unknown option {word}; known are --quick, --json FILE, names of servers").into()
                    )
                }
            }
        }
        Ok(found)
    }
}

/// The staged prefix, as `make stage` lays it out.
fn stage() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("stage");
    env::var_os("SESSCACHE_STAGE").map_or(target, PathBuf::from)
}

/// Makes sites: each a directory and a port of its own.
pub struct Sites<'a> {
    scratch: &'a Path,
    certificate: PathBuf,
    key: PathBuf,
    count: usize,
}

impl Sites<'_> {
    /// A new site. Instances that are to share sessions get the same `store`.
    pub fn new_site(&mut self, name: &str, store: &str) -> Result<Site> {
        self.count += 1;
        let directory = self.scratch.join(format!("{name}-{}", self.count));
        fs::create_dir(&directory)?;
        open_to_all(&directory)?;
        Ok(Site {
            directory,
            port: free_port()?,
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            store: self.scratch.join(store),
            options: "capacity=64MiB".into(),
            own_capacity: 64 << 20,
            workers: 2,
            user: is_root().then(|| "www-data".into()),
            timeout: 3_600,
        })
    }
}

/// One server with all its caches: shares one after the other, cost in turns.
fn compare(subject: &dyn Subject, sites: &mut Sites, plan: &Plan) -> Result<Vec<Row>> {
    let version = subject.version()?;
    let name = subject.name();
    let mut pairs = Vec::new();
    for cache in subject.caches() {
        let store = format!("store-{name}");
        let first = Instance::start(subject, sites.new_site(name, &store)?, cache)?;
        let second = Instance::start(subject, sites.new_site(name, &store)?, cache)?;
        pairs.push((first, second));
    }
    let mut rows = Vec::new();
    for tls in Tls::BOTH {
        let mut errors = Errors::default();
        let instances: Vec<&Instance> = pairs.iter().map(|(first, _)| first).collect();
        let costs = cost::measure(&instances, tls, plan.effort, &mut errors)?;
        for ((first, second), cost) in pairs.iter_mut().zip(costs) {
            let shares = share::measure(first, second, tls, plan.clients, &mut errors)?;
            let complaints = [first.complaints(), second.complaints()].concat();
            let errors = std::mem::take(&mut errors.0);
            rows.push(Row {
                server: name,
                version: version.clone(),
                cache: first.cache.name(),
                tls: tls.name(),
                shares,
                cost,
                errors,
                complaints,
            });
        }
    }
    for (first, second) in &mut pairs {
        first.stop()?;
        second.stop()?;
    }
    rows.sort_by_key(|row| Tls::BOTH.iter().position(|tls| tls.name() == row.tls));
    Ok(rows)
}

/// What is wrong with a row, in words: errors, and with sesscache sessions that did not resume.
fn faults(row: &Row) -> Vec<String> {
    let place = format!("{}, {}, TLS {}", row.server, row.cache, row.tls);
    let mut found: Vec<String> =
        row.errors.iter().chain(&row.complaints).take(5).map(|error| format!("{place}: {error}")).collect();
    let shares = &row.shares;
    for (when, share) in [
        ("within the instance", shares.within),
        ("after a reload", shares.reload),
        ("after stop and start", shares.restart),
        ("after kill -9 of the workers", shares.killed),
        ("in another instance", shares.other),
    ] {
        // One in twenty may meet a writer that a busy machine holds up past the deadline.
        if row.cache == Cache::Sesscache.name() && share.percent() < 95.0 {
            found.push(format!("{place}: {} of {} resumed {when}", share.resumed, share.of));
        }
    }
    found
}

fn work() -> Result<bool> {
    let arguments = Arguments::read()?;
    machine::catch_interrupts();
    let plan = if arguments.quick { QUICK } else { WHOLE };
    let stage = stage();
    let scratch = Scratch::new()?;
    let (certificate, key) = certificate(scratch.path())?;
    let mut sites = Sites { scratch: scratch.path(), certificate, key, count: 0 };
    let (mut rows, mut lives, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for mut subject in subjects() {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|name| name == subject.name()) {
            continue;
        }
        eprintln!("measuring {}", subject.name());
        subject.build(&stage)?;
        let subject = subject.as_ref();
        rows.extend(compare(subject, &mut sites, &plan)?);
        troubles.extend(trouble::measure(subject, &mut sites, plan.clients)?);
        for sessions in plan.live {
            lives.extend(live::measure(subject, &mut sites, *sessions, plan.live_effort)?);
        }
    }
    println!("{}", table::text(&rows));
    lives.iter().for_each(|live| println!("{}", live.text()));
    troubles.iter().for_each(|trouble| println!("{}", trouble.text()));
    if let Some(path) = arguments.json {
        let lives: Vec<_> = lives.iter().map(live::Live::json).collect();
        let troubles: Vec<_> = troubles.iter().map(trouble::Trouble::json).collect();
        let all =
            json!({ "quick": arguments.quick, "servers": table::json(&rows), "live": lives, "trouble": troubles });
        fs::write(path, format!("{all:#}\n"))?;
    }
    let mut faults: Vec<String> = rows.iter().flat_map(faults).collect();
    faults.extend(lives.iter().flat_map(|live| live.errors.iter().take(5).cloned()));
    faults.extend(troubles.iter().flat_map(|trouble| trouble.faults.iter().take(5).cloned()));
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(faults.is_empty())
}

fn main() {
    // The builds of the integrations are named from there.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let code = match env::set_current_dir(root).map_err(Into::into).and_then(|()| work()) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("servers: {error}");
            1
        }
    };
    process::exit(code);
}
