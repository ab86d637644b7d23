//! `metrics`: the counters of stores for Prometheus, once, into a file, or at an address.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tiny_http::{Header, Method, Response, Server};

use crate::arguments::{Metrics, MetricsFormat};
use crate::failure::{Failure, Outcome};
use crate::reading::Reading;
use crate::signals::Interrupted;

mod families;

use self::families::Families;

pub fn run(arguments: &Metrics, json: bool) -> Result<Outcome, Failure> {
    let paths = &arguments.paths;
    if let Some(address) = arguments.listen {
        return serve(paths, arguments.format, address);
    }
    let readings = read(paths);
    let text = match json {
        true => as_json(&readings)?,
        false => text(paths, &readings, arguments.format),
    };
    // A collector goes on reading an old file: it has to say that a store cannot be read.
    match &arguments.output {
        Some(file) => write_whole(file, &text)?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    let up = readings.iter().all(|reading| reading.as_ref().is_ok_and(Reading::is_up));
    say_failures(&readings);
    readings.into_iter().find_map(Result::err).map_or(Ok(Outcome::fine_if(up)), |failure| Ok(failure.outcome()))
}

fn read(paths: &[PathBuf]) -> Vec<Result<Reading, Failure>> {
    paths.iter().map(|path| Reading::of(path)).collect()
}

fn say_failures(readings: &[Result<Reading, Failure>]) {
    for failure in readings.iter().filter_map(|reading| reading.as_ref().err()) {
        failure.say();
    }
}

/// An object, or of several stores a list; null for a store that cannot be read.
fn as_json(readings: &[Result<Reading, Failure>]) -> Result<String, Failure> {
    let mut all: Vec<Value> =
        readings.iter().map(|reading| reading.as_ref().map_or(Value::Null, Reading::json)).collect();
    let value = if all.len() == 1 { all.remove(0) } else { Value::Array(all) };
    Ok(serde_json::to_string_pretty(&value).map_err(io::Error::from)? + "\n")
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

/// All metrics of the stores.
fn text(paths: &[PathBuf], readings: &[Result<Reading, Failure>], format: MetricsFormat) -> String {
    let mut families = Families::default();
    for (path, reading) in paths.iter().zip(readings) {
        families.add_store(&canonical(path).display().to_string(), reading.as_ref().ok());
    }
    families.add_build();
    families.text(format)
}

/// One label for one store, however it was named and whether it is there or not.
fn canonical(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = whole.parent().and_then(|above| above.canonicalize().ok()).zip(whole.file_name());
    above.map_or_else(|| whole.clone(), |(above, name)| above.join(name))
}

/// Answers scrapes until a signal comes. A store that cannot be read is a metric, not an error: it may come back.
fn serve(paths: &[PathBuf], format: MetricsFormat, address: SocketAddr) -> Result<Outcome, Failure> {
    let interrupted = Interrupted::catch().map_err(Failure::system("cannot catch signals"))?;
    let server = Server::http(address)
        .map_err(|cause| Failure::System(format!("cannot listen at {address}"), io::Error::other(cause.to_string())))?;
    println!("listening on http://{}/metrics", server.server_addr());
    while !interrupted.is_set() {
        let request = server.recv_timeout(Duration::from_millis(200)).map_err(Failure::system("cannot listen"))?;
        let Some(request) = request else { continue };
        let (status, text, kind) = match (request.method(), request.url().split('?').next().unwrap_or_default()) {
            (Method::Get | Method::Head, "/metrics") => {
                let readings = read(paths);
                say_failures(&readings);
                (200, text(paths, &readings, format), content_type(format))
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
