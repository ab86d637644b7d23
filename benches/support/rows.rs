//! One measured figure, and the files `target/bench/*.json` that carry it from the benchmarks to the report.
//!
//! ```ignore
//! let mut book = Book::begin("store")?;
//! book.add(
//!     Row::new("store", "get hit", "µs")
//!         .param("size", 140)
//!         .param("sessions", 100_000)
//!         .figure(0.93, Some(1.20))
//!         .against("raw LMDB", 0.55)
//!         .at_most(1.2)
//!         .ratio_at_most(2.0),
//! )?;
//! ```
//! A row may have several targets: it is met when all of them are. `against` comes after `figure`, targets after both.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{json, Map, Value};

/// A figure with what it is compared with.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The table it stands in: `store`, `latency`, `density`, `fork`, `handshake`.
    pub bench: String,
    /// What was measured: `get hit`.
    pub case: String,
    /// Under which circumstances: `{"size": 140, "sessions": 100000}`.
    pub params: Map<String, Value>,
    pub unit: String,
    pub median: f64,
    pub p99: Option<f64>,
    /// Other values of the same measurement by name: `{"p99.9": 80.0, "max": 900.0}`.
    pub more: Map<String, Value>,
    /// What the baseline is and what it took in the same run.
    pub baseline: Option<(String, f64)>,
    /// `median` divided by the baseline's value.
    pub ratio: Option<f64>,
    pub target: Option<String>,
    pub met: Option<bool>,
}

impl Row {
    pub fn new(bench: &str, case: &str, unit: &str) -> Row {
        Row { bench: bench.into(), case: case.into(), unit: unit.into(), ..Row::default() }
    }

    pub fn param(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.params.insert(name.into(), value.into());
        self
    }

    pub fn figure(mut self, median: f64, p99: Option<f64>) -> Row {
        (self.median, self.p99) = (median, p99);
        self
    }

    pub fn more(mut self, name: &str, value: f64) -> Row {
        self.more.insert(name.into(), json!(round(value)));
        self
    }

    pub fn against(mut self, name: &str, value: f64) -> Row {
        self.ratio = Some(self.median / value);
        self.baseline = Some((name.into(), value));
        self
    }

    pub fn at_most(self, limit: f64) -> Row {
        let met = self.median <= limit;
        let text = format!("≤ {limit} {}", self.unit);
        self.aim(&text, met)
    }

    pub fn at_least(self, limit: f64) -> Row {
        let met = self.median >= limit;
        let text = format!("≥ {limit} {}", self.unit);
        self.aim(&text, met)
    }

    pub fn ratio_at_most(self, limit: f64) -> Row {
        let met = self.ratio.is_some_and(|ratio| ratio <= limit);
        self.aim(&format!("≤ {limit}×"), met)
    }

    pub fn ratio_at_least(self, limit: f64) -> Row {
        let met = self.ratio.is_some_and(|ratio| ratio >= limit);
        self.aim(&format!("≥ {limit}×"), met)
    }

    pub fn p99_at_most(self, limit: f64) -> Row {
        let met = self.p99.is_some_and(|p99| p99 <= limit);
        let text = format!("p99 ≤ {limit} {}", self.unit);
        self.aim(&text, met)
    }

    /// A target of any other kind, in words.
    pub fn aim(mut self, text: &str, met: bool) -> Row {
        self.target = Some(self.target.map_or(text.into(), |before| format!("{before}, {text}")));
        self.met = Some(self.met.unwrap_or(true) && met);
        self
    }

    /// A number among the parameters.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.params.get(name)?.as_f64()
    }

    pub fn to_json(&self) -> Value {
        json!({
            "bench": self.bench,
            "case": self.case,
            "params": self.params,
            "unit": self.unit,
            "median": round(self.median),
            "p99": self.p99.map(round),
            "more": self.more,
            "baseline": self.baseline.as_ref().map(|(name, value)| json!({ "name": name, "median": round(*value) })),
            "ratio": self.ratio.map(round),
            "target": self.target,
            "met": self.met,
        })
    }

    pub fn from_json(value: &Value) -> Option<Row> {
        let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let map = |name: &str| value.get(name)?.as_object().cloned();
        let baseline = value.get("baseline")?;
        Some(Row {
            bench: text("bench")?,
            case: text("case")?,
            params: map("params")?,
            unit: text("unit")?,
            median: value.get("median")?.as_f64()?,
            p99: value.get("p99")?.as_f64(),
            more: map("more")?,
            baseline: baseline
                .get("name")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .zip(baseline.get("median").and_then(Value::as_f64)),
            ratio: value.get("ratio")?.as_f64(),
            target: text("target"),
            met: value.get("met")?.as_bool(),
        })
    }
}

/// Four digits that mean something; more would only be noise in the committed results.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// The rows of one benchmark. Its file is written anew with each row, so that an interrupted run leaves what it has.
pub struct Book {
    path: PathBuf,
    rows: Vec<Row>,
}

impl Book {
    /// Begins `target/bench/<name>.json`.
    pub fn begin(name: &str) -> io::Result<Book> {
        fs::create_dir_all(directory())?;
        let book = Book { path: directory().join(format!("{name}.json")), rows: Vec::new() };
        book.save()?;
        Ok(book)
    }

    pub fn add(&mut self, row: Row) -> io::Result<()> {
        let params: Vec<String> = row.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ratio = row.ratio.map_or(String::new(), |ratio| format!(", {ratio:.2}×"));
        eprintln!("{} {} [{}]: {:.3} {}{ratio}", row.bench, row.case, params.join(" "), row.median, row.unit);
        self.rows.push(row);
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        fs::write(&self.path, format!("{:#}\n", Value::Array(rows)))
    }
}

/// All rows found in `target/bench`, file by file in the order of their names.
pub fn read_all() -> io::Result<Vec<Row>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory())?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let file: Value = serde_json::from_str(&fs::read_to_string(&path)?).map_err(|error| bad(error.to_string()))?;
        for value in file.as_array().ok_or_else(|| bad("not a list of rows".into()))? {
            rows.push(Row::from_json(value).ok_or_else(|| bad(format!("not a row: {value}")))?);
        }
    }
    Ok(rows)
}

/// `target/bench`, wherever Cargo keeps `target`.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

/// Whether this is the short run that only shows that everything works.
pub fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|value| value == "1")
}
