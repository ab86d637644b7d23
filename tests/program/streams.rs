//! The program in a pipe, on a terminal, under a scraper, on a store of 200,000 records: it ends when it is told
//! to, leaves nothing behind, takes little memory, and keeps the terminal in order.

use sesscache::{Unit, COUNTERS};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::program::{contents, json, number, sesscache};
use support::{now, open, root, run, signal, spawn_in_group, staged, wait_until, Scratch};

/// A store that is small, for what does not depend on its size.
fn small(scratch: &Scratch) -> String {
    let path = scratch.text("store");
    fill(&path, 100, "");
    path
}

fn fill(path: &str, records: usize, options: &str) {
    let cache = open(Path::new(path), options);
    for _ in 0..records {
        let id = cache.issue_id(Duration::from_secs(3_600)).expect("an id");
        cache.put(&id, &[7; 100], now() + 3_600).expect("a record");
    }
}

const MANY: usize = 200_000;

/// Bytes of memory of its own that a command may have: a record takes some hundred as the program holds it.
fn with_little_memory(command: &mut Command) -> &mut Command {
    const LIMIT: libc::rlimit = libc::rlimit { rlim_cur: 32 << 20, rlim_max: 32 << 20 };
    let limit = || {
        // SAFETY: setrlimit reads the struct that it is given.
        match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &LIMIT) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the hook makes one system call; it neither allocates nor locks.
    unsafe { command.pre_exec(limit) }
}

#[test]
fn a_large_store_is_listed_whole_in_little_memory() {
    let scratch = Scratch::new("program-large");
    let store = &scratch.text("store");
    fill(store, MANY, "capacity=256MiB deadline=10s");
    let mut list = staged("sesscache");
    let done = run(with_little_memory(list.args(["list", store])), support::program::DEADLINE, "")
        .expect_success("a large store cannot be listed");
    assert_eq!(done.stdout.lines().count(), MANY + 1, "records are missing, or listed twice");
    let mut ids: Vec<&str> = done.stdout.lines().skip(1).map(|line| &line[..8]).collect();
    ids.sort_unstable();
    ids.dedup();
    // 200,000 of 2^32 names: about five pairs meet by chance.
    assert!(ids.len() > MANY - 40, "a record is listed twice: {} names", ids.len());
    let mut check = staged("sesscache");
    let done = run(with_little_memory(check.args(["--json", "check", store])), support::program::DEADLINE, "")
        .expect_success("a large store cannot be checked");
    let check: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(number(&check, "intact"), MANY as u64);
}

#[test]
fn a_reader_of_the_list_that_has_enough_is_no_error() {
    let scratch = Scratch::new("program-pipe");
    let store = scratch.text("store");
    // Several times what a pipe holds.
    fill(&store, 10_000, "deadline=10s");
    let mut command = staged("sesscache");
    command.args(["list", &store]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_in_group(&mut command);
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut first).expect("a line");
    assert!(first.starts_with("id"), "{first}");
    // The pipe is closed here, with most of the list unread.
    let mut said = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
    let status = child.wait().expect("wait");
    assert!(status.success() && said.is_empty(), "a closed pipe is an error: {status}, {said}");
}

/// Starts the program with its stdout as a pipe.
fn start(arguments: &[&str]) -> Running {
    let mut command = staged("sesscache");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(spawn_in_group(&mut command))
}

/// Killed when a test gives up on it.
struct Running(Child);

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout");
        let mut byte = [0];
        while stdout.read(&mut byte).expect("stdout") == 1 && byte[0] != b'\n' {
            line.push(char::from(byte[0]));
        }
        line
    }

    /// Sends a signal; the program must end soon. Its exit status.
    fn end_by(&mut self, number: i32) -> Option<i32> {
        assert!(signal(self.0.id(), number), "the program has ended before");
        let mut status = None;
        let ended = wait_until(Duration::from_secs(20), || {
            status = self.0.try_wait().expect("wait");
            status.is_some()
        });
        assert!(ended, "the program does not end on signal {number}");
        status.and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn watch_in_a_pipe_gives_a_line_per_interval_and_ends_on_ctrl_c() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let mut watch = start(&["watch", &path, "--interval", "100ms", "--json"]);
    for _ in 0..3 {
        let line = watch.line();
        let step: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(number(&step, "sessions"), 100);
        assert_eq!(number(&step, "puts"), 0, "nothing was put since: {line}");
    }
    assert_eq!(watch.end_by(libc::SIGINT), Some(0), "Ctrl-C is an error");
}

#[test]
fn watch_follows_a_store_into_a_new_generation() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let mut watch = start(&["watch", &path, "--interval", "100ms", "--json"]);
    let mut step = || -> serde_json::Value { serde_json::from_str(&watch.line()).expect("a step in JSON") };
    let before = number(&step(), "generation");
    // Another capacity begins one, and the sessions of the one before stay.
    fill(&path, 1, "capacity=8MiB");
    let seen = (0..50).map(|_| step()).find(|step| number(step, "sessions") == 101);
    let seen = seen.expect("a session that was stored since is not seen");
    assert_eq!((number(&seen, "generation"), number(&seen, "capacity")), (before + 1, 8 << 20), "{seen}");
    let stat = json(&["--json", &path]);
    assert_eq!((number(&stat, "processes"), number(&stat, "readers")), (0, 0), "watch passes for a server: {stat}");
    assert_eq!(watch.end_by(libc::SIGTERM), Some(0));
}

#[test]
fn watch_on_a_terminal_leaves_it_as_it_was() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    for end in ["q", "ctrl-c", "sigterm"] {
        let mut command = Command::new("python3");
        command.arg(root().join("tests/support/terminal.py")).arg(end).arg(support::stage().join("bin/sesscache"));
        command.args(["watch", &path]).env("LD_LIBRARY_PATH", support::stage().join("lib")).env("TERM", "xterm");
        run(&mut command, support::program::DEADLINE, "").expect_success("watch makes a mess of the terminal");
    }
}

#[test]
fn watch_ends_with_its_terminal_and_by_a_second_signal() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    for how in ["close", "eof", "stuck-term", "stuck-int"] {
        let mut command = Command::new("python3");
        command.arg(root().join("tests/support/hangup.py")).arg(how).arg(support::stage().join("bin/sesscache"));
        command.args(["watch", &path, "--interval", "100ms"]).env("TERM", "xterm");
        run(&mut command, support::program::DEADLINE, "").expect_success("watch outlives its terminal");
    }
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    for verb in ["stat", "list", "doctor", "check"] {
        let done = sesscache(&[verb, &path]).expect_success("a verb fails");
        assert!(!done.stdout.contains('\x1b'), "{verb} writes escape sequences into a pipe\n{done}");
    }
}

/// The name of a counter's metric, and its label: one metric for all that may come of one thing.
fn sample_of(counter: &str) -> String {
    let grouped =
        |metric: &str, label: &str, value: &str| format!("sesscache_{metric}_total{{path=PATH,{label}=\"{value}\"}}");
    match counter {
        "hits" => grouped("lookups", "result", "hit"),
        "puts" => grouped("stores", "result", "stored"),
        "puts_skipped" | "puts_busy" | "puts_full" | "puts_failed" => grouped("stores", "result", &counter[5..]),
        "takes" => grouped("removals", "reason", "taken"),
        "removes" => grouped("removals", "reason", "removed"),
        "evicted" | "expired" => grouped("removals", "reason", counter),
        "client_hits" => grouped("client_lookups", "result", "hit"),
        "client_misses" => grouped("client_lookups", "result", "miss"),
        "client_puts" => grouped("client_stores", "result", "stored"),
        "client_puts_failed" => grouped("client_stores", "result", "failed"),
        "handshakes_full" | "handshakes_resumed" => grouped("handshakes", "kind", &counter[11..]),
        _ if counter.starts_with("misses_") => grouped("lookups", "result", &counter[7..]),
        _ => format!("sesscache_{counter}_total{{path=PATH}}"),
    }
}

#[test]
fn metrics_have_every_counter_with_its_meaning() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let stat = json(&["--json", &path]);
    let prometheus = sesscache(&["metrics", &path]).expect_success("metrics fail").stdout;
    for row in COUNTERS.iter().filter(|row| row.unit == Unit::Count) {
        let sample = sample_of(row.name).replace("PATH", &format!("\"{path}\""));
        let line = format!("{sample} {}\n", number(&stat, row.name));
        assert!(prometheus.contains(&line), "{} is missing or wrong:\n{prometheus}", row.name);
        let family = sample.split('{').next().unwrap_or_default();
        let helps = prometheus.matches(&format!("# HELP {family} ")).count();
        assert_eq!(helps, 1, "{family} has {helps} helps");
    }
    assert!(prometheus.contains(&format!("sesscache_sessions{{path=\"{path}\"}} 100\n")), "{prometheus}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(prometheus.contains(&format!("sesscache_build_info{{version=\"{version}\",openssl=\"")), "{prometheus}");
    let began = prometheus.lines().find_map(|line| line.strip_prefix("sesscache_counting_since_timestamp_seconds{"));
    let began: u64 = began.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("when counting began");
    assert!(now().abs_diff(began as i64) < 600, "counting began at {began}");
    let open = sesscache(&["metrics", &path, "--format", "openmetrics"]).expect_success("metrics fail").stdout;
    assert!(
        open.ends_with("# EOF\n") && open.contains("# TYPE sesscache_stores counter\nsesscache_stores_total{"),
        "{open}"
    );
    assert!(open.contains("# TYPE sesscache_build info\nsesscache_build_info{"), "{open}");
}

#[test]
fn several_stores_have_one_family_for_each_metric() {
    let scratch = Scratch::new("program");
    let (first, second, gone) = (small(&scratch), scratch.text("second"), scratch.text("gone"));
    fill(&second, 7, "");
    let text = sesscache(&["metrics", &first, &second]).expect_success("metrics of two stores fail").stdout;
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let unique: std::collections::HashSet<&&str> = families.iter().collect();
    assert_eq!(unique.len(), families.len(), "a family is there twice, which no scraper takes:\n{text}");
    for (path, n) in [(&first, 100), (&second, 7)] {
        let stored = format!("sesscache_stores_total{{path=\"{path}\",result=\"stored\"}} {n}\n");
        assert!(text.contains(&stored), "{text}");
    }
    let some = sesscache(&["metrics", &first, &gone]);
    assert_eq!(support::program::exit_status(&some), 1, "{some}");
    for line in [format!("sesscache_up{{path=\"{first}\"}} 1\n"), format!("sesscache_up{{path=\"{gone}\"}} 0\n")] {
        assert!(some.stdout.contains(&line), "one store that is gone hides the others\n{some}");
    }
}

/// Debian's package prometheus has promtool.
#[test]
fn prometheus_takes_the_metrics_and_each_alert_fires_once() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let text = sesscache(&["metrics", &path]).expect_success("metrics fail").stdout;
    let directory = root().join("packaging/prometheus");
    let rules = fs::read_to_string(directory.join("sesscache.rules.yml")).expect("the rules");
    let names =
        rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|name| name.starts_with("sesscache_"));
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 8, "no metrics in the rules: {names:?}");
    for name in names {
        assert!(text.contains(&format!("\n{name}{{")), "an alert goes by {name}, which is no metric:\n{text}");
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        return eprintln!("skipped: promtool is not installed (apt install prometheus)");
    }
    run(Command::new("promtool").args(["check", "metrics"]), support::program::DEADLINE, &text)
        .expect_success("promtool does not like the metrics");
    let mut command = Command::new("promtool");
    run(command.args(["test", "rules", "sesscache.test.yml"]).current_dir(directory), support::program::DEADLINE, "")
        .expect_success("an alert does not fire when it should, or does when it should not");
}

#[test]
fn a_metrics_file_is_replaced_whole() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let directory = scratch.text("collected");
    fs::create_dir(&directory).expect("a directory");
    let file = format!("{directory}/sesscache.prom");
    fs::write(&file, "old").expect("an old file");
    sesscache(&["metrics", &path, "--output", &file]).expect_success("metrics cannot be written to a file");
    let files = contents(Path::new(&directory));
    assert_eq!(files.len(), 1, "something is left beside the file: {files:?}");
    assert!(String::from_utf8_lossy(&files[0].1).starts_with("# HELP"), "{files:?}");
}

#[test]
fn a_scraper_is_answered_until_the_program_is_told_to_end() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let mut serving = start(&["metrics", &path, "--listen", "127.0.0.1:0"]);
    let line = serving.line();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default().to_owned();
    let get = |method: &str, target: &str| {
        let mut stream = TcpStream::connect(&address).unwrap_or_else(|e| panic!("{line}: {e}"));
        stream.set_read_timeout(Some(support::patience(Duration::from_secs(20)))).expect("a timeout");
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let answer = get("GET", "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("sesscache_up{"), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(get("GET", "/other").starts_with("HTTP/1.1 404"));
    assert!(get("POST", "/metrics").starts_with("HTTP/1.1 405"));
    fs::remove_dir_all(&path).expect("the store goes away");
    assert!(get("GET", "/metrics").contains("sesscache_up{path=\"") && get("GET", "/metrics").contains("\"} 0\n"));
    assert_eq!(serving.end_by(libc::SIGTERM), Some(0));
}

#[test]
fn a_benchmark_leaves_nothing_behind_and_the_store_alone() {
    let scratch = Scratch::new("program");
    let path = small(&scratch);
    let before = json(&["--json", &path]);
    let bench = json(&["--json", "bench", &path, "--sessions", "2000"]);
    let names: Vec<&str> =
        bench["operations"].as_array().expect("rows").iter().filter_map(|row| row["operation"].as_str()).collect();
    assert_eq!(names, ["put", "get", "miss", "take"]);
    let after = json(&["--json", &path]);
    for name in ["puts", "hits", "sessions"] {
        assert_eq!(number(&before, name), number(&after, name), "the benchmark has used the live store");
    }
    let mut bench = start(&["bench", &path, "--sessions", "10000000"]);
    let beside = || fs::read_dir(scratch.path()).expect("a directory").flatten().count();
    assert!(wait_until(Duration::from_secs(20), || beside() == 2), "there is no scratch store");
    let began = Instant::now();
    assert_eq!(bench.end_by(libc::SIGINT), Some(1));
    assert_eq!(beside(), 1, "an interrupted benchmark leaves its store behind");
    assert!(began.elapsed() < support::patience(Duration::from_secs(20)));
}

#[test]
fn the_demo_shows_sessions_that_resume() {
    let mut program = staged("sesscache");
    program.args(["demo", "--connections", "40", "--key", "ec"]);
    let done = run(&mut program, Duration::from_secs(300), "").expect_success("the demo fails");
    let rows: Vec<&str> = done.stdout.lines().filter(|line| line.contains("  sesscache ")).collect();
    assert_eq!(rows.len(), 2, "{done}");
    assert!(rows.iter().all(|row| row.contains("39 of 39 (100 %)")), "sessions do not resume in the demo\n{done}");
    // README.md has the demo's words, with figures of its own.
    let figures = |text: &str| {
        let text = text.replace("2000", "N").replace("40", "N").replace("rsa:2048", "ec");
        text.lines().filter(|line| !line.starts_with("TLS ")).map(|line| line.to_owned() + "\n").collect::<String>()
    };
    let (shown, printed) = (figures(&support::demo::in_readme()), figures(&done.stdout));
    assert!(printed.starts_with(&shown), "README.md shows another table than the demo prints:\n{shown}\n{printed}");
    assert!(done.stdout.lines().all(|line| line.chars().count() <= 80), "a line is too wide for a terminal\n{done}");
}

#[test]
fn a_script_reads_the_figures_of_the_demo() {
    let done = run(
        staged("sesscache").args(["--json", "demo", "--connections", "40", "--key", "ec"]),
        Duration::from_secs(300),
        "",
    );
    let done = done.expect_success("the demo fails");
    let all: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("no JSON: {e}\n{done}"));
    assert_eq!((number(&all, "workers"), number(&all, "connections")), (4, 40), "{all}");
    assert_eq!(all["key"], "ec");
    let rows = all["rows"].as_array().expect("rows");
    let kinds: Vec<_> = rows.iter().map(|row| (row["protocol"].as_str(), row["cache"].as_str())).collect();
    let (own, ours) = (Some("OpenSSL's own"), Some("sesscache"));
    let [v12, v13] = [Some("TLS 1.2"), Some("TLS 1.3")];
    assert_eq!(kinds, [(v12, own), (v12, ours), (v13, own), (v13, ours)]);
    for row in rows {
        let [offered, resumed, elsewhere, cpu] =
            ["offered", "resumed", "resumed_elsewhere", "server_cpu_us"].map(|name| number(row, name));
        assert!(elsewhere <= resumed && resumed <= offered && offered == 39 && cpu > 0, "wrong figures: {row}");
        if row["cache"] == "sesscache" {
            assert_eq!((resumed, number(row, "s_client_resumed")), (39, 10), "sessions do not resume: {row}");
        }
    }
    let mut wrong = staged("sesscache");
    let done = run(wrong.args(["demo", "--key", "rsa:20\"48"]), Duration::from_secs(60), "");
    assert!(!done.status.success() && done.stderr.contains("rsa:BITS"), "a key of no kind is taken\n{done}");
}

#[test]
fn the_program_runs_without_the_shared_library() {
    let mut command = Command::new("readelf");
    command.arg("-d").arg(support::stage().join("bin/sesscache")).env("LC_ALL", "C");
    let dynamic = run(&mut command, support::program::DEADLINE, "").expect_success("readelf fails").stdout;
    assert!(!dynamic.contains("libsesscache"), "the program cannot start where the library is not found\n{dynamic}");
}
