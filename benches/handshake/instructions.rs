//! Instructions of the server's side of resumed handshakes, counted by callgrind: they do not vary with the machine's load.
//!
//! One process under valgrind does all rows. What is counted runs inside of [`counted`], and a dump ends each row.

use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::children::{self, Forking};
use crate::context::{People, Setting};
use crate::lanes::{self, Caches, Lane};
use crate::memory::{median, Case, Runner};
use crate::pki::Kind;

/// Handshakes of each row; the first few, which fill tables, are not counted.
const HANDSHAKES: usize = 40;
const BEFORE: usize = 5;
/// Children of each row of theirs. The middle one counts: now and then one has to do maintenance.
const CHILDREN: usize = 5;
/// Records that lie in the store: under valgrind a hundred thousand take minutes.
const RECORDS: usize = 2_000;
const LANES: [Lane; 4] = [Lane::PassThrough, Lane::Codec, Lane::Sesscache, Lane::Unseen];
/// What valgrind is told of the two functions below.
const FLAGS: [&str; 4] =
    ["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=bench_counted", "--dump-after=bench_end_of_row"];

/// Runs what is counted, when this process is under valgrind.
pub fn counted<T>(f: impl FnOnce() -> T) -> T {
    let (mut f, mut result) = (Some(f), None);
    bench_counted(&mut || result = f.take().map(|f| f()));
    result.expect("just made")
}

/// valgrind knows it by its name.
#[no_mangle]
#[inline(never)]
fn bench_counted(f: &mut dyn FnMut()) {
    f();
    black_box(());
}

/// valgrind knows it by its name: here it writes what it has counted, and begins anew.
#[no_mangle]
#[inline(never)]
fn bench_end_of_row() {
    black_box(());
}

fn settings() -> impl Iterator<Item = Setting> {
    let clients = [None, Some(Kind::P256), Some(Kind::Rsa2048)];
    [false, true].into_iter().flat_map(move |tls13| clients.map(|client| Setting { tls13, server: Kind::P256, client }))
}

/// What runs under valgrind: every row, and a line for each that says which dump has it.
pub fn rows(scratch: &Path) -> io::Result<()> {
    let caches: Caches = crate::caches(&scratch.join("store"), RECORDS);
    let people = People::new();
    let mut dumps = 0;
    let mut end_of_row = || {
        bench_end_of_row();
        dumps += 1;
        dumps
    };
    for setting in settings() {
        let case = if setting.tls13 { Case::Chain } else { Case::Again };
        for lane in LANES {
            lanes::follow(true);
            let mut runner = Runner::new(lane, case, setting, &people, &caches);
            lanes::follow(case == Case::Chain);
            (0..BEFORE).for_each(|_| runner.once(case));
            end_of_row();
            (0..HANDSHAKES).for_each(|_| runner.once(case));
            let part = end_of_row();
            let who = format!("TLS {}\t{}\t{}", setting.version(), setting.client_name(), lane.name());
            println!("{who}\t{}.{part}\t{HANDSHAKES}", std::process::id());
            lanes::forget();
        }
    }
    for setting in settings() {
        for lane in children::LANES {
            let server = Forking::new(lane, setting, &people, &caches);
            end_of_row();
            server.once()?;
            let who = format!("TLS {}, a process each\t{}\t{}", setting.version(), setting.client_name(), lane.name());
            for _ in 0..CHILDREN {
                let (child, _) = server.once()?;
                println!("{who}\t{child}\t1");
            }
            lanes::forget();
        }
    }
    io::stdout().flush()
}

/// Runs the rows under valgrind, and says what it has counted.
pub fn measure(scratch: &Path) -> io::Result<()> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(FLAGS).arg(format!("--callgrind-out-file={}/out.%p", scratch.display()));
    let done = valgrind.arg(env::current_exe()?).arg("counted").stderr(Stdio::piped()).output()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut rows: Vec<(Vec<&str>, Vec<f64>)> = Vec::new();
    let text = String::from_utf8_lossy(&done.stdout);
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (dump, handshakes) = (fields[3], fields[4].parse::<f64>().expect("a number"));
        let each = total(&scratch.join(format!("out.{dump}")))? / handshakes;
        match rows.last_mut().filter(|(row, _)| row[..] == fields[..3]) {
            Some((_, counts)) => counts.push(each),
            None => rows.push((fields[..3].to_vec(), vec![each])),
        }
    }
    println!("{:24} {:11} {:20} {:>12} {:>7}", "resumed", "client", "cache", "instructions", "ratio");
    let mut floor = 0.0;
    for (row, mut counts) in rows {
        let each = median(&mut counts);
        if row[2] == Lane::PassThrough.name() {
            floor = each;
        }
        println!("{:24} {:11} {:20} {each:12.0} {:7.3}", row[0], row[1], row[2], each / floor);
    }
    if let Some(keep) = env::var_os("BENCH_DUMPS") {
        for file in
            fs::read_dir(scratch)?.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("out."))
        {
            fs::copy(file.path(), Path::new(&keep).join(file.file_name()))?;
        }
    }
    Ok(())
}

/// What one dump has counted.
fn total(dump: &Path) -> io::Result<f64> {
    let text = fs::read_to_string(dump)?;
    let totals = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    Ok(totals.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{}: no total", dump.display())))
}
