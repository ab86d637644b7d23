//! Counters: one table of name, unit and meaning, shared by the library, the C struct and every document.

/// Something that happens and is counted, in the shared control page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// A lookup found a session that may resume.
    Hits,
    /// No record under this id.
    MissesAbsent,
    /// The id was not made by this store; LMDB was not asked.
    MissesForeign,
    /// The session had reached the end of its life.
    MissesExpired,
    /// Made under another protocol version or by another major version of OpenSSL.
    MissesProtocol,
    /// Made in another namespace.
    MissesNamespace,
    /// Made under another server name.
    MissesServerName,
    /// Made without the client authentication that is demanded now.
    MissesClientAuth,
    /// The record did not open: damaged, or sealed under a key that is gone.
    MissesDamaged,
    /// The store could not be asked.
    MissesUnavailable,
    /// Sessions stored.
    Puts,
    /// Sessions that nobody could ever look up, and so were not stored.
    PutsSkipped,
    /// Not stored: the gate was held past the deadline.
    PutsBusy,
    /// Not stored: no room could be made.
    PutsFull,
    /// Not stored: any other failure.
    PutsFailed,
    /// Sessions handed out for the only time.
    Takes,
    /// Sessions deleted on request or after a TLS error.
    Removes,
    /// Removals asked by OpenSSL that were no sign of a bad session.
    RemovesIgnored,
    /// Sessions that made room before their time.
    Evicted,
    /// Sessions deleted at the end of their life.
    Expired,
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::Expired as usize + 1;

/// The unit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Goes up only.
    Count,
    /// A number at this moment.
    Now,
    /// Bytes at this moment.
    Bytes,
}

/// One row of the table: a field of `sesscache_stats`, in its order.
pub struct Row {
    /// Field name.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// One sentence.
    pub meaning: &'static str,
}

const fn count(name: &'static str, meaning: &'static str) -> Row {
    Row { name, unit: Unit::Count, meaning }
}

/// Fields before the counters.
pub const GAUGES: usize = 4;

/// Every field of `sesscache_stats`, append-only.
pub const TABLE: &[Row] = &[
    Row { name: "sessions", unit: Unit::Now, meaning: "records in the store" },
    Row { name: "used_bytes", unit: Unit::Bytes, meaning: "bytes of pages in use" },
    Row { name: "capacity", unit: Unit::Bytes, meaning: "hard limit of the store, in bytes" },
    Row { name: "generation", unit: Unit::Now, meaning: "number of the current generation" },
    count("hits", "lookups that found a session"),
    count("misses_absent", "lookups of an id the store does not have"),
    count("misses_foreign", "lookups of an id this store did not make, refused without a search"),
    count("misses_expired", "lookups of a session at the end of its life"),
    count("misses_protocol", "lookups under another protocol version or major version of OpenSSL"),
    count("misses_namespace", "lookups from another namespace"),
    count("misses_server_name", "lookups under another server name"),
    count("misses_client_auth", "lookups where client authentication is demanded that the session lacks"),
    count("misses_damaged", "records that did not open: damaged, or the key is gone"),
    count("misses_unavailable", "lookups while the store could not be asked"),
    count("puts", "sessions stored"),
    count("puts_skipped", "sessions not stored because nobody could look them up"),
    count("puts_busy", "sessions not stored because the gate was held past the deadline"),
    count("puts_full", "sessions not stored because no room could be made"),
    count("puts_failed", "sessions not stored for another reason"),
    count("takes", "sessions handed out for the only time"),
    count("removes", "sessions deleted on request or after a TLS error"),
    count("removes_ignored", "removals asked by OpenSSL that were no sign of a bad session"),
    count("evicted", "sessions that made room before their time"),
    count("expired", "sessions deleted at the end of their life"),
];

/// A reading of everything in [`TABLE`], in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats(pub [u64; GAUGES + COUNTERS]);

impl Stats {
    /// A counter by its row name, for tests and tools.
    pub fn get(&self, name: &str) -> Option<u64> {
        TABLE.iter().position(|row| row.name == name).map(|at| self.0[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_counter_in_order() {
        assert_eq!(TABLE.len(), GAUGES + COUNTERS);
        assert_eq!(TABLE[GAUGES + Counter::Hits as usize].name, "hits");
        assert_eq!(TABLE[GAUGES + Counter::PutsBusy as usize].name, "puts_busy");
        assert_eq!(TABLE[GAUGES + Counter::Expired as usize].name, "expired");
    }
}
