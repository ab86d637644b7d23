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
    /// Made under a cipher that the connection does not allow.
    MissesCipher,
    /// Ended by `sesscache_forget`.
    MissesRevoked,
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::MissesRevoked as usize + 1;

/// The unit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Goes up only.
    Count,
    /// A number at this moment.
    Now,
    /// Bytes at this moment.
    Bytes,
    /// From 0 to 1.
    Ratio,
    /// Seconds since 1970.
    Time,
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
    count("misses_cipher", "lookups of a TLS 1.2 session whose cipher this connection does not allow"),
    count("misses_revoked", "lookups of a session whose login sesscache_forget() has ended"),
];

const fn reading(name: &'static str, unit: Unit, meaning: &'static str) -> Row {
    Row { name, unit, meaning }
}

/// What the program works out besides, under these names.
pub const READINGS: &[Row] = &[
    reading("lookups", Unit::Count, "hits, and misses but for ids that this store did not make"),
    reading("hit_rate", Unit::Ratio, "hits in all lookups, from 0 to 1; ids that this store did not make are left out"),
    reading("expires_first", Unit::Time, "when the first session expires, in seconds since 1970"),
    reading("expires_last", Unit::Time, "when the last session expires, in seconds since 1970"),
    reading("processes", Unit::Now, "processes that have looked something up and are still there"),
    reading("readers", Unit::Now, "reader slots taken, one per thread that looks up"),
    reading("readers_limit", Unit::Now, "reader slots in all"),
    reading("readers_stale", Unit::Now, "reader slots of processes that are gone"),
    reading("file_bytes", Unit::Bytes, "bytes that the data files occupy"),
];

/// A reading of everything in [`TABLE`], in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats(pub [u64; GAUGES + COUNTERS]);

impl Stats {
    /// Lookups of ids that this store made: hits and every miss but the foreign ones, which say nothing of the cache.
    pub fn lookups(&self) -> u64 {
        let misses = TABLE.iter().zip(self.0).filter(|(row, _)| row.name.starts_with("misses_"));
        let misses: u64 = misses.filter(|(row, _)| row.name != "misses_foreign").map(|(_, n)| n).sum();
        misses + self.0[GAUGES + Counter::Hits as usize]
    }

    /// Hits in all lookups; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.lookups();
        (lookups > 0).then(|| self.0[GAUGES + Counter::Hits as usize] as f64 / lookups as f64)
    }

    /// What has been counted since the counters were `before`; the gauges are those of `self`.
    pub fn since(&self, before: &[u64; COUNTERS]) -> Stats {
        let mut all = self.clone();
        for (n, before) in all.0[GAUGES..].iter_mut().zip(before) {
            *n = n.saturating_sub(*before);
        }
        all
    }

    /// The counters without the gauges.
    pub fn counters(&self) -> [u64; COUNTERS] {
        std::array::from_fn(|at| self.0[GAUGES + at])
    }

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
