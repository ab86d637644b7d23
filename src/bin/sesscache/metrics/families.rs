//! The metrics and their text: what happens to one kind of thing is one metric, with a label that tells how it ended, so that a sum
//! or a share over all of them is one expression.

use std::fmt::Write;

use serde_json::Value;
use sesscache::inspect;
use sesscache::{CounterRow, Unit, COUNTERS, READINGS};

use crate::arguments::MetricsFormat;
use crate::reading::Reading;

/// Counters that are one metric: its name, its label and what it says, and how the counters in it begin or are called.
struct Grouped {
    name: &'static str,
    label: &'static str,
    help: &'static str,
    /// Counters that begin so have the rest of their name as the value of the label.
    prefix: &'static str,
    /// Others, with the value of their label.
    others: &'static [(&'static str, &'static str)],
}

const GROUPED: &[Grouped] = &[
    Grouped {
        name: "lookups",
        label: "result",
        help: "lookups by what they found",
        prefix: "misses_",
        others: &[("hits", "hit")],
    },
    Grouped {
        name: "stores",
        label: "result",
        help: "sessions to be stored, by what came of it",
        prefix: "",
        others: &[
            ("puts", "stored"),
            ("puts_skipped", "skipped"),
            ("puts_busy", "busy"),
            ("puts_full", "full"),
            ("puts_failed", "failed"),
        ],
    },
    Grouped {
        name: "removals",
        label: "reason",
        help: "sessions that left the store, by the reason",
        prefix: "",
        others: &[("takes", "taken"), ("removes", "removed"), ("evicted", "evicted"), ("expired", "expired")],
    },
    Grouped {
        name: "client_lookups",
        label: "result",
        help: "lookups by clients, by what they found",
        prefix: "",
        others: &[("client_hits", "hit"), ("client_misses", "miss")],
    },
    Grouped {
        name: "client_stores",
        label: "result",
        help: "sessions of clients to be stored, by what came of it",
        prefix: "",
        others: &[("client_puts", "stored"), ("client_puts_failed", "failed")],
    },
    Grouped {
        name: "handshakes",
        label: "kind",
        help: "handshakes of the SSL_CTXs that are attached",
        prefix: "handshakes_",
        others: &[],
    },
];

impl Grouped {
    fn value_of(&self, counter: &str) -> Option<&'static str> {
        let listed = self.others.iter().find(|(name, _)| *name == counter).map(|(_, value)| *value);
        let row = COUNTERS.iter().find(|row| row.name == counter)?;
        listed.or_else(|| row.name.strip_prefix(self.prefix).filter(|_| !self.prefix.is_empty()))
    }
}

/// The metric of a counter, without its prefix and suffix, and the label that tells it from others.
pub fn metric_of(counter: &'static str) -> (&'static str, Option<(&'static str, &'static str)>) {
    let grouped = GROUPED.iter().find_map(|group| group.value_of(counter).map(|value| (group, value)));
    grouped.map_or((counter, None), |(group, value)| (group.name, Some((group.label, value))))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

struct Family {
    name: String,
    kind: Kind,
    help: String,
    /// Labels, and the value.
    samples: Vec<(String, Value)>,
}

/// All metrics of some stores.
#[derive(Default)]
pub struct Families(Vec<Family>);

impl Families {
    /// Adds a store under its path; without a reading, that it cannot be read.
    pub fn add_store(&mut self, path: &str, reading: Option<&Reading>) {
        let path = label("path", path);
        let up = reading.is_some_and(Reading::is_up);
        self.add("up", Kind::Gauge, "1 when the store can be read", &path, &u8::from(up).into());
        let Some(reading) = reading else { return };
        for (row, n) in COUNTERS.iter().zip(reading.stats.values()) {
            match metric_of(row.name) {
                (name, Some((of, value))) => {
                    let help = GROUPED.iter().find(|group| group.name == name).map_or(row.meaning, |group| group.help);
                    self.add(name, Kind::Counter, help, &format!("{path},{}", label(of, value)), &n.into());
                }
                (_, None) => self.add_row(row, &path, &n.into()),
            }
        }
        // A rate over any time is for the query to work out of the counters.
        for row in READINGS.iter().filter(|row| !matches!(row.unit, Unit::Count | Unit::Ratio)) {
            self.add_row(row, &path, &reading.worked_out(row.name));
        }
        let warnings = reading.warnings().len();
        self.add("warnings", Kind::Gauge, "warnings that `sesscache stat` prints", &path, &warnings.into());
        let help = "when counting began, in seconds since 1970";
        self.add("counting_since_timestamp_seconds", Kind::Gauge, help, &path, &reading.created.into());
    }

    /// Adds which program this is.
    pub fn add_build(&mut self) {
        let versions = inspect::versions();
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("openssl", &versions.openssl), ("lmdb", &versions.lmdb)];
        let labels: Vec<String> = labels.iter().map(|(name, value)| label(name, value)).collect();
        self.add("build_info", Kind::Info, "versions of this program and its libraries", &labels.join(","), &1.into());
    }

    fn add_row(&mut self, row: &CounterRow, labels: &str, value: &Value) {
        let with = |suffix: &str| match row.name.ends_with(suffix) {
            true => row.name.to_owned(),
            false => format!("{}{suffix}", row.name),
        };
        match row.unit {
            Unit::Count => self.add(row.name, Kind::Counter, row.meaning, labels, value),
            Unit::Now | Unit::Ratio => self.add(row.name, Kind::Gauge, row.meaning, labels, value),
            Unit::Bytes => self.add(&with("_bytes"), Kind::Gauge, row.meaning, labels, value),
            Unit::Time => self.add(&with("_timestamp_seconds"), Kind::Gauge, row.meaning, labels, value),
        }
    }

    /// A metric that has no value is left out.
    fn add(&mut self, name: &str, kind: Kind, help: &str, labels: &str, value: &Value) {
        if value.is_null() {
            return;
        }
        let sample = (labels.to_owned(), value.clone());
        match self.0.iter_mut().find(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => self.0.push(Family { name: name.to_owned(), kind, help: help.to_owned(), samples: vec![sample] }),
        }
    }

    /// The text of all of them: a family in one piece, whatever the stores.
    pub fn text(&self, format: MetricsFormat) -> String {
        let mut text = String::new();
        let open = format == MetricsFormat::Openmetrics;
        for Family { name, kind, help, samples } in &self.0 {
            // OpenMetrics names the family without the suffix of its samples.
            let (base, suffix, kind) = match kind {
                Kind::Counter => (name.as_str(), "_total", "counter"),
                Kind::Info if open => (name.trim_end_matches("_info"), "_info", "info"),
                Kind::Gauge | Kind::Info => (name.as_str(), "", "gauge"),
            };
            let family = if open { base.to_owned() } else { format!("{base}{suffix}") };
            let _ = writeln!(text, "# HELP sesscache_{family} {}\n# TYPE sesscache_{family} {kind}", escape(help));
            for (labels, value) in samples {
                let _ = writeln!(text, "sesscache_{base}{suffix}{{{labels}}} {value}");
            }
        }
        if open {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", escape(value))
}

/// As label values and help texts want it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_a_sample_of_its_own() {
        let mut seen = Vec::new();
        for row in COUNTERS.iter().filter(|row| row.unit == Unit::Count) {
            let metric = metric_of(row.name);
            assert!(!seen.contains(&metric), "{} has the sample of another", row.name);
            seen.push(metric);
        }
        assert_eq!(metric_of("misses_server_name"), ("lookups", Some(("result", "server_name"))));
        assert_eq!(metric_of("puts_busy"), ("stores", Some(("result", "busy"))));
        assert_eq!(metric_of("hits_refused"), ("hits_refused", None));
        assert_eq!(metric_of("puts_local"), ("puts_local", None));
    }
}
