//! How much of a store each namespace has, so that one that floods it cannot push out the others.
//!
//! The sums lie in the generation's page and change under the write lock only. A process that dies between its commit and
//! the sum leaves a record uncounted or counted for nothing: the sums steer who makes room, and nothing is lost by an error.

use super::id::{expiry_of, Key};
use super::record::Header;
use crate::sys::shared_page::Word;

/// Namespaces that are told apart when room is made; all further ones share the last row.
pub(crate) const NAMESPACES: usize = 32;

/// What the namespaces have, as all processes see it.
#[repr(C)]
pub(crate) struct UsageTable([NamespaceUsage; NAMESPACES]);

#[repr(C)]
struct NamespaceUsage {
    /// Hash of the namespace in headers, plus 1; 0: nobody's.
    namespace: Word,
    bytes: Word,
    /// No record of it in time order expires before this moment, in microseconds.
    first: Word,
}

impl UsageTable {
    /// The row of a namespace that is in the table.
    pub(super) fn find(&self, namespace: u32) -> Option<usize> {
        let name = u64::from(namespace) + 1;
        self.0.iter().position(|row| row.namespace.get() == name)
    }

    /// The row of a namespace, taken now if it has none. Under the write lock only.
    pub(super) fn row(&self, namespace: u32) -> usize {
        self.find(namespace).unwrap_or_else(|| {
            let free = self.0.iter().position(|row| row.bytes.get() == 0).unwrap_or(NAMESPACES - 1);
            self.0[free].namespace.set(u64::from(namespace) + 1);
            self.0[free].first.set(u64::MAX);
            free
        })
    }

    /// Whether the record with this head counts in that row.
    pub(super) fn counts(&self, row: usize, head: &[u8]) -> bool {
        Header::read(head).is_none_or(|header| row == self.row(header.namespace))
    }
}

/// What one transaction changes of it.
pub(crate) struct UsageChange<'t> {
    table: &'t UsageTable,
    bytes: [i64; NAMESPACES],
    /// Where the records of a row begin now, in microseconds of expiry; 0: where they did.
    first: [u64; NAMESPACES],
    changed: bool,
    /// The row of the head met last: what follows it belongs to the same record.
    last: usize,
}

impl<'t> UsageChange<'t> {
    pub(crate) fn new(table: &'t UsageTable) -> UsageChange<'t> {
        UsageChange { table, bytes: [0; NAMESPACES], first: [0; NAMESPACES], changed: false, last: 0 }
    }

    /// Bytes that an entry takes: key, value, and LMDB's node header.
    fn size(key: &[u8], value: &[u8]) -> i64 {
        (key.len() + value.len() + 8) as i64
    }

    /// Notes an entry of `namespace` (its hash in headers) that is put.
    pub(crate) fn put(&mut self, namespace: u32, key: &[u8], value: &[u8]) {
        self.last = self.table.row(namespace);
        self.bytes[self.last] += UsageChange::size(key, value);
        if let Some(expiry) = expiry_of(key).filter(|expiry| *expiry < self.first(self.last)) {
            self.first[self.last] = expiry;
        }
        self.changed = true;
    }

    /// Notes an entry that is deleted; continuations follow their heads.
    pub(crate) fn delete(&mut self, key: &[u8], value: &[u8]) {
        if Key::read(key).is_some_and(|key| key.is_head()) {
            self.last = Header::read(value).map_or(0, |header| self.table.row(header.namespace));
        }
        self.bytes[self.last] -= UsageChange::size(key, value);
        self.changed = true;
    }

    /// The row that makes room: of the namespace that has most. `None` when there is one namespace only.
    pub(crate) fn largest(&self) -> Option<usize> {
        let bytes: [u64; NAMESPACES] =
            std::array::from_fn(|row| self.table.0[row].bytes.get().saturating_add_signed(self.bytes[row]));
        let several = bytes.iter().filter(|bytes| **bytes > 0).count() > 1;
        (0..NAMESPACES).max_by_key(|row| bytes[*row]).filter(|_| several)
    }

    /// No record of this row expires before this moment.
    pub(crate) fn first(&self, row: usize) -> u64 {
        match self.first[row] {
            0 => self.table.0[row].first.get(),
            first => first,
        }
    }

    /// Notes that none does before this one.
    pub(crate) fn set_first(&mut self, row: usize, micros: u64) {
        self.first[row] = micros;
        self.changed = true;
    }

    /// The transaction has committed.
    pub(crate) fn apply(&self) {
        if !self.changed {
            return;
        }
        for ((row, change), first) in self.table.0.iter().zip(self.bytes).zip(self.first) {
            if change != 0 {
                let bytes = row.bytes.get().saturating_add_signed(change);
                row.bytes.set(bytes);
            }
            if first != 0 {
                row.first.set(first);
            }
        }
    }
}
