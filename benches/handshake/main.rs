//! Whole handshakes, from the server's side: full and resumed, TLS 1.2 and 1.3, without and with a client certificate.
//!
//! Six ways to know a session again take turns in one run, so that what the machine does meanwhile hits all of them
//! alike; the figure that counts is the ratio to callbacks that cost nothing. Sessions that sesscache resumes were made
//! by another process, in a store of a hundred thousand records.
//!
//! `cargo bench --bench handshake` takes some minutes; `BENCH_QUICK=1` a few seconds, and only shows that all of it
//! works. The rows are in `target/bench/handshake.json`. With the argument `instructions` it counts instructions instead of
//! time, under valgrind.

#[path = "../support/mod.rs"]
mod support;

mod children;
mod context;
mod ffi;
mod instructions;
mod lanes;
mod memory;
mod pki;
mod share;
mod sockets;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, io, process};

use sesscache::{Cache, Options};

use crate::context::{People, Setting};
use crate::lanes::Caches;
use crate::memory::Case;
use crate::pki::Kind;
use crate::support::rows::{quick, Book};

/// Records that lie in the store already, and their size: what a TLS 1.2 session has without a client certificate.
const RECORDS: usize = 100_000;
const RECORD: usize = 140;

/// A directory in memory where there is one, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        let path = base.join(format!("sesscache-handshake-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What remains is only a directory in memory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Path, options: &str) -> Cache {
    let cache = Options::parse(options).and_then(|options| Cache::open(directory, &options));
    cache.unwrap_or_else(|error| panic!("{options}: {}", error.detail))
}

/// Opens the store and fills it.
fn caches(directory: &Path, records: usize) -> Caches {
    let seen = open(directory, "capacity=256MiB ttl=1h");
    let unseen = open(directory, "decoded=0 ttl=1h");
    let life = Duration::from_secs(7_200);
    let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() as i64 + 7_200;
    for n in 0..records {
        let put = seen.issue_id(life).and_then(|id| seen.put(&id, &[n as u8; RECORD], expires));
        put.unwrap_or_else(|error| panic!("filling the store: {}", error.detail));
    }
    Caches { seen, unseen }
}

fn main() -> io::Result<()> {
    let scratch = Scratch::new()?;
    match env::args().nth(1).as_deref() {
        Some("instructions") => return instructions::measure(&scratch.0),
        Some("counted") => return instructions::rows(&scratch.0),
        _ => {}
    }
    let part = |n: usize| if quick() { n / 20 } else { n };
    let caches = caches(&scratch.0.join("store"), part(RECORDS));
    let people = People::new();
    let mut book = Book::begin("handshake")?;
    let clients = [None, Some(Kind::P256), Some(Kind::Rsa2048)];
    for tls13 in [false, true] {
        let resumed: &[Case] = if tls13 { &[Case::Again, Case::Chain] } else { &[Case::Again] };
        for client in clients {
            for server in [Kind::P256, Kind::Rsa2048] {
                let setting = Setting { tls13, server, client };
                memory::measure(&mut book, Case::Full, setting, &people, &caches, part(400))?;
                for case in resumed {
                    memory::measure(&mut book, *case, setting, &people, &caches, part(2_000))?;
                }
            }
            let setting = Setting { tls13, server: Kind::P256, client };
            for case in [&[Case::Full], resumed].concat() {
                share::measure(&mut book, case, setting, &people, &caches, part(1_000))?;
            }
        }
    }
    for tls13 in [false, true] {
        for client in clients {
            let setting = Setting { tls13, server: Kind::P256, client };
            children::measure(&mut book, setting, &people, &caches, part(300))?;
        }
    }
    for tls13 in [false, true] {
        for client in clients {
            let setting = Setting { tls13, server: Kind::P256, client };
            for case in [Case::Full, if tls13 { Case::Chain } else { Case::Again }] {
                sockets::measure(&mut book, case, setting, &people, &caches, part(800))?;
            }
        }
    }
    Ok(())
}
