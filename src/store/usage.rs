//! How much of a store each namespace has, so that one that floods it cannot push out the others.
//!
//! The sums lie in the gate's page and change behind the gate only. A process that dies between its commit and the sum
//! leaves a record uncounted or counted for nothing: the sums steer who makes room, and nothing is lost by an error.

use super::gate::{Gate, NAMESPACES};
use super::id::{expiry_of, Key};
use super::record::Header;

/// The changes of one transaction.
pub(crate) struct Usage {
    changes: [i64; NAMESPACES],
    /// Where the records of a share begin now, in microseconds of expiry; 0: where they did.
    first: [u64; NAMESPACES],
    changed: bool,
    /// The share of the head met last: what follows it belongs to the same record.
    last: usize,
}

impl Usage {
    pub(crate) fn new() -> Usage {
        Usage { changes: [0; NAMESPACES], first: [0; NAMESPACES], changed: false, last: 0 }
    }

    /// Bytes that an entry takes: key, value, and LMDB's node header.
    fn size(key: &[u8], value: &[u8]) -> i64 {
        (key.len() + value.len() + 8) as i64
    }

    /// Notes an entry of `namespace` (its hash in headers) that is put.
    pub(crate) fn put(&mut self, gate: &Gate, namespace: u32, key: &[u8], value: &[u8]) {
        self.last = gate.slot_of_namespace(namespace);
        self.changes[self.last] += Usage::size(key, value);
        if let Some(expiry) = expiry_of(key).filter(|expiry| *expiry < self.first(gate, self.last)) {
            self.first[self.last] = expiry;
        }
        self.changed = true;
    }

    /// Notes an entry that is deleted; continuations follow their heads.
    pub(crate) fn gone(&mut self, gate: &Gate, key: &[u8], value: &[u8]) {
        if Key::read(key).is_some_and(|key| key.is_head()) {
            self.last = Header::read(value).map_or(0, |header| gate.slot_of_namespace(header.namespace));
        }
        self.changes[self.last] -= Usage::size(key, value);
        self.changed = true;
    }

    fn bytes(&self, gate: &Gate, share: usize) -> u64 {
        gate.namespace_bytes(share).saturating_add_signed(self.changes[share])
    }

    /// The share that makes room: the namespace that has most. `None` when there is one namespace only.
    pub(crate) fn largest(&self, gate: &Gate) -> Option<usize> {
        let bytes: [u64; NAMESPACES] = std::array::from_fn(|share| self.bytes(gate, share));
        let several = bytes.iter().filter(|bytes| **bytes > 0).count() > 1;
        (0..NAMESPACES).max_by_key(|share| bytes[*share]).filter(|_| several)
    }

    /// No record of this share expires before this moment.
    pub(crate) fn first(&self, gate: &Gate, share: usize) -> u64 {
        match self.first[share] {
            0 => gate.namespace_first(share),
            first => first,
        }
    }

    /// Notes that none does before this one.
    pub(crate) fn set_first(&mut self, share: usize, micros: u64) {
        self.first[share] = micros;
        self.changed = true;
    }

    /// Whether the record with this head is of that share.
    pub(crate) fn is_of(gate: &Gate, share: usize, head: &[u8]) -> bool {
        Header::read(head).is_none_or(|header| share == gate.slot_of_namespace(header.namespace))
    }

    /// The transaction has committed.
    pub(crate) fn settle(&self, gate: &Gate) {
        if self.changed {
            for (share, change) in self.changes.iter().enumerate().filter(|(_, change)| **change != 0) {
                gate.set_namespace_bytes(share, gate.namespace_bytes(share).saturating_add_signed(*change));
            }
            for (share, first) in self.first.iter().enumerate().filter(|(_, first)| **first != 0) {
                gate.set_namespace_first(share, *first);
            }
        }
    }
}
