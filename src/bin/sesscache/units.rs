//! Numbers as people read them, and times as they write them.

use std::time::Duration;

/// Reads a time: 500ms, 90s, 15m, 2h, 1d.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let parsed = (|| {
        let end = text.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = text[..end].parse().ok()?;
        let seconds = match &text[end..] {
            "ms" => return Some(Duration::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        number.checked_mul(seconds).map(Duration::from_secs)
    })();
    parsed.ok_or_else(|| "give a time with a unit, such as 500ms, 90s, 15m, 2h or 1d".to_owned())
}

/// 12,345,678.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits and a binary unit: 24.8 MiB.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value {
        _ if unit == 0 => format!("{n} B"),
        v if v < 9.995 => format!("{v:.2} {}", UNITS[unit]),
        v if v < 99.95 => format!("{v:.1} {}", UNITS[unit]),
        v => format!("{v:.0} {}", UNITS[unit]),
    }
}

/// Seconds in the two largest units: 1 h 58 min.
pub fn seconds(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|unit| n >= unit.0) else { return "0 s".to_owned() };
    let (size, name) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(next, name)| (n % size / next, name)).filter(|rest| rest.0 > 0);
    match rest {
        Some((n_rest, name_rest)) => format!("{} {name} {n_rest} {name_rest}", n / size),
        None => format!("{} {name}", n / size),
    }
}

/// The same without spaces, for a column: 1h58m.
pub fn short_seconds(n: u64) -> String {
    seconds(n).replace("min", "m").replace(' ', "")
}

/// A share in per cent; a dash when there is none.
pub fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0))
}

/// A rate, with a digit behind the point where it matters.
pub fn rate(per_second: f64) -> String {
    if per_second < 99.95 && per_second > 0.0 {
        format!("{per_second:.1}")
    } else {
        number(per_second.round() as u64)
    }
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!((number(0), number(999), number(1_000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!((bytes(0), bytes(999), bytes(1_000)), ("0 B".into(), "999 B".into(), "0.98 KiB".into()));
        assert_eq!((bytes(64 << 20), bytes(26_000_000)), ("64.0 MiB".into(), "24.8 MiB".into()));
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!((seconds(0), seconds(59), seconds(60)), ("0 s".into(), "59 s".into(), "1 min".into()));
        assert_eq!((seconds(7_199), seconds(90_061)), ("1 h 59 min".into(), "1 d 1 h".into()));
        assert_eq!((short_seconds(7_199), short_seconds(61)), ("1h59m".into(), "1m1s".into()));
        assert_eq!((percent(None), percent(Some(0.9876))), ("-".into(), "98.8 %".into()));
        assert_eq!((rate(0.0), rate(0.25), rate(1234.5)), ("0".into(), "0.2".into(), "1,235".into()));
    }

    #[test]
    fn a_time_without_a_unit_is_refused() {
        assert_eq!(parse_time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "m", "5 m", "-5m", "5y", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
