//! Values of arguments: what is accepted, and what is said of the others.

use std::time::Duration;

use crate::units;

/// The record that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By the 8 digits of its hash.
    Short(String),
    /// By its id.
    Whole(Vec<u8>),
}

pub(super) fn id(text: &str) -> Result<Wanted, String> {
    let digits = text.to_ascii_lowercase();
    if digits.is_empty() || digits.len() % 2 != 0 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("give the 8 digits that `list` shows, or the whole id in hexadecimal".to_owned());
    }
    if digits.len() == 8 {
        return Ok(Wanted::Short(digits));
    }
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|e| e.to_string());
    (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Wanted::Whole)
}

/// What systemd.unit(5) allows in a name, without the specifiers that a drop-in expands.
pub(super) fn unit_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    match !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("give the name of a service, such as lighttpd".to_owned()),
    }
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let time = units::parse_time(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(&time);
    fits.then_some(time).ok_or_else(|| "give a time from 100ms to 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_short_one_or_the_whole() {
        assert_eq!(id("0123ABCD"), Ok(Wanted::Short("0123abcd".to_owned())));
        assert_eq!(id("01ff"), Ok(Wanted::Whole(vec![1, 255])));
        for bad in ["", "0", "123", "xy", "0123abcg"] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
