//! What stands behind the `=` of an option.

use std::time::Duration;

pub(super) fn word(value: &str) -> Option<String> {
    (!value.is_empty() && value.len() <= 64).then(|| value.to_owned())
}

pub(super) fn on(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Splits `256MiB` into 256 and `MiB`.
fn number_and_unit(value: &str) -> Option<(u64, &str)> {
    let end = value.find(|c: char| !c.is_ascii_digit())?;
    Some((value[..end].parse().ok()?, &value[end..]))
}

pub(super) fn size(value: &str) -> Option<u64> {
    let (n, unit) = number_and_unit(value)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    n.checked_mul(1 << shift)
}

pub(super) fn time(value: &str) -> Option<Duration> {
    let (n, unit) = number_and_unit(value)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(n)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    n.checked_mul(seconds).map(Duration::from_secs)
}
