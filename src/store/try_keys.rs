//! Whether the newest records open with the sealing keys at hand. Processes that have the keys find out and note it in the control
//! file, for those who look at the store without them.

use super::env::{Fault, Txn};
use super::found::copy_record;
use super::id::{Key, ID};
use super::page::GenerationPage;
use super::record;
use super::seal::{AssociatedData, Sealer};
use super::trial::Trial;
use super::NamespaceHash;
use crate::sys::{clock, crypto};

/// Records that are tried in a generation: one may be damaged by itself.
const TRIED: usize = 4;

/// The records that expire last, of about those that were stored last: keys, and records as they lie in the store.
pub(crate) fn newest(txn: &mut Txn) -> Result<Vec<(Key, Vec<u8>)>, Fault> {
    let mut keys: Vec<Key> = Vec::with_capacity(TRIED);
    // A record in several pieces has several entries.
    let mut left = 4 * TRIED;
    txn.walk_back(|key| {
        let key = key.get(..ID).and_then(Key::read).filter(|key| key.expiry().is_some());
        if let Some(key) = key.filter(|key| keys.last().is_none_or(|last| last.bytes() != key.bytes())) {
            keys.push(key);
        }
        left -= 1;
        keys.len() < TRIED && left > 0
    })?;
    let mut records = Vec::with_capacity(keys.len());
    for key in keys {
        let mut bytes = Vec::new();
        if copy_record(txn, &key, &mut bytes)? {
            records.push((key, bytes));
        }
    }
    Ok(records)
}

/// Tries to open records of a generation. Those that have expired, or are of namespaces that the generation has no note of, say
/// nothing of the keys.
pub(crate) fn open(records: &[(Key, Vec<u8>)], sealer: &mut Sealer, page: &GenerationPage) -> Trial {
    let (mut trial, mut plain) = (Trial::default(), Vec::new());
    let now = clock::coarse_micros();
    for (key, bytes) in records {
        let Some(sealed) = record::parse(bytes) else { continue };
        let half = sealed.header.namespace;
        let namespace =
            if half == 0 { Some(NamespaceHash::default()) } else { page.namespace(half).map(NamespaceHash::noted) };
        let Some(namespace) = namespace.filter(|_| sealed.header.is_alive(now, page.horizon(now))) else { continue };
        let associated = AssociatedData { key: key.bytes(), namespace: namespace.whole() };
        match sealer.open(&sealed, associated, &mut plain) {
            true => trial.opened += 1,
            false => trial.failed += 1,
        }
        crypto::cleanse(&mut plain);
    }
    trial
}
