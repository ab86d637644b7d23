//! `metrics`: the counter table for Prometheus, once, into a file, or at an address.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sesscache::{CounterRow, Unit, COUNTERS, READINGS};
use tiny_http::{Header, Method, Response, Server};

use crate::arguments::{Metrics, MetricsFormat};
use crate::failure::{Failure, Outcome};
use crate::reading::Reading;
use crate::signals::Interrupted;

pub fn run(arguments: &Metrics, json: bool) -> Result<Outcome, Failure> {
    let path = &arguments.look.path;
    if let Some(address) = arguments.listen {
        return serve(path, arguments.format, address);
    }
    let reading = Reading::of(path);
    let text = match (json, &reading) {
        (true, Ok(reading)) => serde_json::to_string_pretty(&reading.json()).map_err(io::Error::from)? + "\n",
        (true, Err(_)) => return reading.map(|_| Outcome::Unhealthy),
        (false, reading) => text(path, reading.as_ref().ok(), arguments.format),
    };
    // A collector goes on reading an old file: it has to say that the store cannot be read.
    match &arguments.output {
        Some(file) => write_whole(file, &text)?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    reading.map(|reading| Outcome::fine_if(is_up(&reading)))
}

/// Whether sessions can be read. A generation that is damaged as a whole is up for nobody.
fn is_up(reading: &Reading) -> bool {
    reading.damage.is_none()
}

/// Whoever reads the file finds the whole of the old text or the whole of the new.
fn write_whole(file: &Path, text: &str) -> Result<(), Failure> {
    let mut name = file.as_os_str().to_owned();
    // Collectors read *.prom, and so not this.
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&unfinished)
        .and_then(|mut to| to.write_all(text.as_bytes()).and_then(|()| to.sync_data()))
        .and_then(|()| fs::rename(&unfinished, file));
    written.map_err(|cause| {
        let _ = fs::remove_file(&unfinished);
        Failure::System(format!("cannot write {}", file.display()), cause)
    })
}

/// All metrics of a store; without a reading, that it cannot be read.
fn text(path: &Path, reading: Option<&Reading>, format: MetricsFormat) -> String {
    let label = format!("{{path=\"{}\"}}", escape(&canonical(path).display().to_string()));
    let mut families = Families { text: String::new(), label, format };
    families.add("up", Kind::Gauge, "1 when the store can be read", &Value::from(u8::from(reading.is_some_and(is_up))));
    if let Some(reading) = reading {
        for (row, n) in COUNTERS.iter().zip(reading.stats.values()) {
            families.row(row, &n.into());
        }
        // A rate over any time is for the query to work out of the counters.
        let now = READINGS.iter().filter(|row| !matches!(row.unit, Unit::Count | Unit::Ratio));
        for row in now {
            families.row(row, &reading.worked_out(row.name));
        }
        families.add(
            "warnings",
            Kind::Gauge,
            "warnings that `sesscache stat` prints",
            &reading.warnings().len().into(),
        );
    }
    if format == MetricsFormat::Openmetrics {
        families.text.push_str("# EOF\n");
    }
    families.text
}

/// One label for one store, however it was named and whether it is there or not.
fn canonical(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = whole.parent().and_then(|above| above.canonicalize().ok()).zip(whole.file_name());
    above.map_or_else(|| whole.clone(), |(above, name)| above.join(name))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

struct Families {
    text: String,
    label: String,
    format: MetricsFormat,
}

impl Families {
    fn row(&mut self, row: &CounterRow, value: &Value) {
        let with = |suffix: &str| match row.name.ends_with(suffix) {
            true => row.name.to_owned(),
            false => format!("{}{suffix}", row.name),
        };
        match row.unit {
            Unit::Count => self.add(row.name, Kind::Counter, row.meaning, value),
            Unit::Now | Unit::Ratio => self.add(row.name, Kind::Gauge, row.meaning, value),
            Unit::Bytes => self.add(&with("_bytes"), Kind::Gauge, row.meaning, value),
            Unit::Time => self.add(&with("_timestamp_seconds"), Kind::Gauge, row.meaning, value),
        }
    }

    /// A metric that has no value is left out.
    fn add(&mut self, name: &str, kind: Kind, help: &str, value: &Value) {
        if value.is_null() {
            return;
        }
        let kind_name = if kind == Kind::Counter { "counter" } else { "gauge" };
        let sample = format!("sesscache_{name}{}", if kind == Kind::Counter { "_total" } else { "" });
        // OpenMetrics names the family without the suffix of its sample, and ends each help with a full stop or not at all.
        let family = match self.format {
            MetricsFormat::Openmetrics => format!("sesscache_{name}"),
            MetricsFormat::Prometheus => sample.clone(),
        };
        let (help, label) = (escape(help), &self.label);
        let lines = format!("# HELP {family} {help}\n# TYPE {family} {kind_name}\n{sample}{label} {value}\n");
        self.text.push_str(&lines);
    }
}

/// As label values and help texts want it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Answers scrapes until a signal comes. A store that cannot be read is a metric, not an error: it may come back.
fn serve(path: &Path, format: MetricsFormat, address: SocketAddr) -> Result<Outcome, Failure> {
    let interrupted = Interrupted::catch().map_err(Failure::system("cannot catch signals"))?;
    let server = Server::http(address)
        .map_err(|cause| Failure::System(format!("cannot listen at {address}"), io::Error::other(cause.to_string())))?;
    println!("listening on http://{}/metrics", server.server_addr());
    while !interrupted.is_set() {
        let request = server.recv_timeout(Duration::from_millis(200)).map_err(Failure::system("cannot listen"))?;
        let Some(request) = request else { continue };
        let (status, text, kind) = match (request.method(), request.url().split('?').next().unwrap_or_default()) {
            (Method::Get | Method::Head, "/metrics") => {
                let reading = Reading::of(path);
                if let Err(Failure::Store(error)) = &reading {
                    eprintln!("sesscache: {error}");
                }
                (200, text(path, reading.ok().as_ref(), format), content_type(format))
            }
            (Method::Get | Method::Head, _) => (404, "the metrics are at /metrics\n".to_owned(), "text/plain"),
            _ => (405, "only GET is supported\n".to_owned(), "text/plain"),
        };
        let header = Header::from_bytes("Content-Type", kind).expect("a header in ASCII");
        // A client that has gone away is none of our business.
        let _ = request.respond(Response::from_string(text).with_status_code(status).with_header(header));
    }
    Ok(Outcome::Fine)
}

fn content_type(format: MetricsFormat) -> &'static str {
    match format {
        MetricsFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        MetricsFormat::Openmetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}
