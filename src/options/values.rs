//! What stands behind the `=` of an option.

use std::time::Duration;

use super::TABLE;
use crate::status::{Error, Result};

pub(super) fn word(value: &str) -> Option<String> {
    (!value.is_empty() && value.len() <= 64).then(|| value.to_owned())
}

/// What the word stands for.
pub(super) fn one_of<T: Copy>(value: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meant)| *meant)
}

pub(super) fn on(value: &str) -> Option<bool> {
    one_of(value, &[("on", true), ("off", false)])
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

/// Refuses a bare value that goes on with another option behind a comma or a semicolon, of which some would be taken for text.
pub(super) fn check_separator(name: &str, value: &str, left: &str) -> Result<()> {
    let named = |name: &str| TABLE.iter().any(|row| row.name == name.strip_suffix('?').unwrap_or(name));
    let is_option = |text: &str| text.split_once('=').is_some_and(|(name, _)| named(name));
    let separates = |(at, c): (usize, char)| {
        let next = match &value[at + c.len_utf8()..] {
            "" => left.trim_start(),
            next => next,
        };
        matches!(c, ',' | ';') && is_option(next)
    };
    let Some((at, _)) = value.char_indices().find(|found| separates(*found)) else { return Ok(()) };
    let (first, c) = (&value[..at], &value[at..=at]);
    let next = value[at + 1..]
        .split(c)
        .next()
        .filter(|next| !next.is_empty())
        .unwrap_or_else(|| left.split_whitespace().next().unwrap_or_default());
    Err(Error::invalid(format!("option {name}='{first}' is followed by '{c}' and another option"))
        .remedy(format!("spaces separate options: {name}={first} {next}")))
}
