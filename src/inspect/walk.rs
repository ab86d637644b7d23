//! A walk through all records, in batches: no snapshot lasts from one to the next.

use super::generation::Moment;
use super::{Inspect, Record};
use crate::status::Result;
use crate::store::id::{Key, Mask, ID, OUTSIDERS, TIMES};
use crate::store::record::Header;

/// Entries looked at in one snapshot to find the first session that has not expired.
const EXPIRED_AT_FRONT: usize = 10_000;

/// Where a walk is; the default is before the first record.
#[derive(Clone, Copy, Default)]
pub struct Position {
    /// Index of the generation.
    view: usize,
    after: Option<Key>,
}

impl Inspect {
    /// The sessions that expire first and last, of those that have not expired.
    pub fn ends(&mut self) -> Result<Option<(Record, Record)>> {
        let mask = self.mask();
        let mut ends: Option<(Record, Record)> = None;
        for view in &mut self.views {
            let moment = view.moment();
            let found = view.read(|txn| {
                let mut first = None;
                let mut looked = 0;
                txn.walk(TIMES, |key, value| {
                    looked += 1;
                    first = head(&mask, key, value, moment).filter(|record| record.alive);
                    first.is_none() && looked < EXPIRED_AT_FRONT
                })?;
                let last = txn.last(|key, _| Key::read(key.get(..ID)?))?.flatten();
                let last = match last.filter(|key| key.expiry().is_some()) {
                    Some(key) => txn.get(key.bytes())?.and_then(|value| head(&mask, key.bytes(), value, moment)),
                    None => None,
                };
                Ok(first.zip(last))
            })?;
            let Some((first, last)) = found else { continue };
            ends = Some(match ends {
                None => (first, last),
                Some((a, b)) => (
                    if first.key.bytes() < a.key.bytes() { first } else { a },
                    if last.key.bytes() > b.key.bytes() { last } else { b },
                ),
            });
        }
        Ok(ends)
    }

    /// The next records, at most `most`; none at the end. First those with ids made elsewhere and the application's own,
    /// then those of this store in the order of their expiry.
    pub fn batch(&mut self, position: &mut Position, most: usize) -> Result<Vec<Record>> {
        let mask = self.mask();
        while let Some(view) = self.views.get_mut(position.view) {
            let moment = view.moment();
            let after = position.after;
            let found = view.read(|txn| {
                let mut found: Vec<Record> = Vec::new();
                let from = after.as_ref().map_or(OUTSIDERS, |key| key.bytes());
                txn.walk(from, |key, value| {
                    if after.as_ref().is_some_and(|after| after.bytes() == key) {
                        return true;
                    }
                    match head(&mask, key, value, moment) {
                        Some(_) if found.len() == most => return false,
                        Some(head) => found.push(head),
                        None => {
                            if let Some(last) = found.last_mut().filter(|last| key.starts_with(last.key.bytes())) {
                                last.bytes += value.len();
                            }
                        }
                    }
                    true
                })?;
                Ok(found)
            })?;
            match found.last() {
                Some(last) => {
                    position.after = Some(last.key);
                    return Ok(found);
                }
                None => *position = Position { view: position.view + 1, after: None },
            }
        }
        Ok(Vec::new())
    }

    fn mask(&self) -> Mask {
        Mask::new(&self.control.mask, self.control.site)
    }
}

/// A record by its first entry; `None` for a continuation.
fn head(mask: &Mask, key: &[u8], value: &[u8], moment: Moment) -> Option<Record> {
    let key = Key::read(key)?;
    let id = mask.id_of(&key)?;
    let header = Header::read(value);
    let alive = header.is_none_or(|header| header.is_alive(moment.now, moment.horizon));
    Some(Record { key, id, generation: moment.generation, bytes: value.len(), alive, header })
}
