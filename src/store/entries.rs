//! Names in a store's directory. Nothing under another name is ever removed.

use crate::status::{Error, Result};
use crate::sys::{crypto, files};

/// What a generation's directory holds.
pub(crate) const PAGE: &str = "gate";
pub(crate) const DATA: &str = "data.mdb";
pub(crate) const LOCK: &str = "lock.mdb";

/// A name that nobody has, for what is being made. What is left of it is cleared away later.
pub(super) fn new_name() -> Result<String> {
    let mut random = [0; 8];
    match crypto::random(&mut random) {
        true => Ok(format!("new-{:016x}", u64::from_ne_bytes(random))),
        false => Err(Error::no_random()),
    }
}

/// Names what processes must have in common to share a store.
pub(super) fn platform() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-{}-{}", std::env::consts::ARCH, libc, files::page_size())
}

/// The name of a generation's directory.
pub(crate) fn generation_name(number: u64) -> String {
    format!("v1-{}-{number:x}", platform())
}

pub(super) fn generation_number(name: &str) -> Option<u64> {
    let (head, number) = name.rsplit_once('-')?;
    head.starts_with("v1-").then(|| u64::from_str_radix(number, 16).ok()).flatten()
}

/// Whether it is the name of something unfinished.
pub(super) fn is_unfinished(name: &str) -> bool {
    let random = ["new-", "control.", "key."].iter().find_map(|head| name.strip_prefix(head));
    random.is_some_and(|random| random.len() >= 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a store has such names, or those have who replace its key by hand.
pub(crate) fn is_made_here(name: &str) -> bool {
    matches!(name, "control" | "key")
        || name.starts_with("key.")
        || is_unfinished(name)
        || generation_number(name).is_some()
}

/// Whether a generation has a file of that name.
pub(crate) fn is_generations(name: &str) -> bool {
    [PAGE, DATA, LOCK].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_known_by_its_name() {
        assert_eq!(generation_number(&generation_name(0x1234_5678_9abc)), Some(0x1234_5678_9abc));
        assert_eq!(generation_number("control"), None);
        assert_eq!(generation_number("key-1"), None);
    }

    #[test]
    fn names_of_others_are_told_apart() {
        assert!(is_unfinished(&new_name().unwrap()) && is_unfinished("control.0123456789abcdef"));
        assert!(["new-door", "control.conf", "key.new", "control", "key"].iter().all(|name| !is_unfinished(name)));
        assert!(["control", "key", "key.new", &generation_name(1)].iter().all(|name| is_made_here(name)));
        assert!(["lost+found", ".", ".bashrc", "control.conf", "v1", "data.mdb"]
            .iter()
            .all(|name| !is_made_here(name)));
    }
}
