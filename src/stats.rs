//! Counters: one table of name, unit and meaning makes [`Stats`], the C struct and the documents.

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

/// One row of a table of counters.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CounterRow {
    /// Name of the field.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// One sentence.
    pub meaning: &'static str,
}

const fn row(name: &'static str, unit: Unit, meaning: &'static str) -> CounterRow {
    CounterRow { name, unit, meaning }
}

/// Gauges first, counters behind them: the field in [`Stats`], its unit or its [`Counter`], its meaning.
macro_rules! table {
    (
        $($gauge:ident $unit:ident $gauge_meaning:literal,)*;
        $($counter:ident $field:ident $meaning:literal,)*
    ) => {
        /// Something that happens and is counted, in the shared control page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum Counter {
            $(#[doc = $meaning] $counter,)*
        }

        /// How many counters there are.
        pub(crate) const COUNTERS: usize = [$(Counter::$counter),*].len();
        /// How many fields there are: gauges and counters.
        const FIELDS: usize = TABLE.len();

        /// Every field of [`Stats`] and of `sesscache_stats`, in order. Append-only.
        pub const TABLE: &[CounterRow] = &[
            $(row(stringify!($gauge), Unit::$unit, $gauge_meaning),)*
            $(row(stringify!($field), Unit::Count, $meaning),)*
        ];

        /// Counters since the store was made, summed over all processes, and a few numbers of this moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(C)]
        pub struct Stats {
            $(#[doc = $gauge_meaning] pub $gauge: u64,)*
            $(#[doc = $meaning] pub $field: u64,)*
        }

        impl Stats {
            /// The same gauges with these counters.
            pub(crate) fn with_counters(self, counters: [u64; COUNTERS]) -> Stats {
                let [$($field),*] = counters;
                Stats { $($field,)* ..self }
            }

            fn counters(&self) -> [u64; COUNTERS] {
                [$(self.$field),*]
            }

            /// Every field in the order of the table, which is `COUNTERS` of the crate.
            pub fn values(&self) -> [u64; FIELDS] {
                [$(self.$gauge,)* $(self.$field),*]
            }
        }
    };
}

table! {
    sessions Now "records in the store: sessions, and the application's own",
    used_bytes Bytes "bytes of the pages in use",
    capacity Bytes "hard limit of the store, in bytes",
    generation Now "number of the current generation",
;
    Hits hits "lookups that found a session",
    MissesAbsent misses_absent "lookups of an id that the store does not have",
    MissesForeign misses_foreign "lookups of an id that this store did not issue, rejected without a search",
    MissesExpired misses_expired "lookups of a session that has expired",
    MissesProtocol misses_protocol "lookups under another protocol version, or another major version of OpenSSL",
    MissesNamespace misses_namespace "lookups from another namespace",
    MissesServerName misses_server_name "lookups under another server name",
    MissesClientAuth misses_client_auth "lookups that demand client authentication, of a session without it",
    MissesDamaged misses_damaged "lookups of a record that does not decrypt: it is damaged, or its key is gone",
    MissesUnavailable misses_unavailable "lookups while the store could not be read",
    Puts puts "sessions stored",
    PutsSkipped puts_skipped "sessions not stored because no client could resume them",
    PutsBusy puts_busy "sessions not stored because the write lock was held past the deadline",
    PutsFull puts_full "sessions not stored because no room could be made",
    PutsFailed puts_failed "sessions not stored for another reason, such as being longer than 64 KiB",
    Takes takes "single-use sessions consumed",
    Removes removes "sessions deleted on request or after a TLS error",
    RemovesIgnored removes_ignored "removals by OpenSSL that were no sign of a bad session",
    Evicted evicted "sessions evicted before they expired",
    Expired expired "sessions deleted after they expired",
    MissesCipher misses_cipher "lookups of a TLS 1.2 session whose cipher this connection does not allow",
    MissesRevoked misses_revoked "lookups of a session whose login sesscache_forget() has ended",
    HitsRefused hits_refused "hits after which OpenSSL refused the session: the servers differ in their session id contexts, for example",
    HandshakesFull handshakes_full "full handshakes of the SSL_CTXs that are attached",
    HandshakesResumed handshakes_resumed "handshakes of these SSL_CTXs that resumed a session, wherever it was kept",
    HitsLocal hits_local "hits on a session that was in memory, because it could not be stored",
    PutsLocal puts_local "sessions kept in memory because they could not be stored",
    ClientHits client_hits "lookups by a client that found a session with its server",
    ClientMisses client_misses "lookups by a client that found none that it may use",
    ClientPuts client_puts "sessions of clients stored",
    ClientPutsFailed client_puts_failed "sessions of clients that could not be stored",
}

/// What the program works out besides, under these names.
pub const READINGS: &[CounterRow] = &[
    row("lookups", Unit::Count, "hits, and misses but for ids that this store did not make"),
    row("hit_rate", Unit::Ratio, "hits that OpenSSL did not refuse in all lookups, from 0 to 1"),
    row("handshakes", Unit::Count, "handshakes of the SSL_CTXs that are attached: full ones and resumptions"),
    row("resumption_rate", Unit::Ratio, "resumptions in all handshakes, from 0 to 1"),
    row("expires_first", Unit::Time, "when the first session expires, in seconds since 1970"),
    row("expires_last", Unit::Time, "when the last session expires, in seconds since 1970"),
    row("processes", Unit::Now, "processes that have looked something up and are still there"),
    row("readers", Unit::Now, "reader slots taken, one per thread that looks up"),
    row("readers_limit", Unit::Now, "reader slots in all"),
    row("readers_stale", Unit::Now, "reader slots of processes that are gone"),
    row("file_bytes", Unit::Bytes, "bytes that the data files occupy"),
    row(
        "newest_open",
        Unit::Now,
        "of the newest records, those that opened with the sealing keys when they were last tried",
    ),
    row("newest_unreadable", Unit::Now, "of the newest records, those that did not"),
    row("newest_tried", Unit::Time, "when they were last tried, in seconds since 1970"),
];

impl Stats {
    /// Lookups of ids that this store issued: hits and every miss but the foreign ones, which say nothing of the cache.
    pub fn lookups(&self) -> u64 {
        let misses = TABLE.iter().zip(self.values()).filter(|(row, _)| row.name.starts_with("misses_"));
        self.hits + misses.map(|(_, n)| n).sum::<u64>() - self.misses_foreign
    }

    /// Hits that OpenSSL did not refuse in all lookups; `None` before the first.
    pub fn hit_rate(&self) -> Option<f64> {
        share(self.hits.saturating_sub(self.hits_refused), self.lookups())
    }

    /// Handshakes of the SSL_CTXs that are attached.
    pub fn handshakes(&self) -> u64 {
        self.handshakes_full + self.handshakes_resumed
    }

    /// Resumptions in all handshakes; `None` before the first.
    pub fn resumption_rate(&self) -> Option<f64> {
        share(self.handshakes_resumed, self.handshakes())
    }

    /// What has been counted since `before`; the gauges are those of `self`.
    #[must_use]
    pub fn since(&self, before: &Stats) -> Stats {
        let (now, before) = (self.counters(), before.counters());
        self.with_counters(std::array::from_fn(|n| now[n].saturating_sub(before[n])))
    }

    /// A field by its name.
    pub fn get(&self, name: &str) -> Option<u64> {
        TABLE.iter().position(|row| row.name == name).map(|at| self.values()[at])
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_under_its_name() {
        let mut counters = [0; COUNTERS];
        counters[Counter::PutsBusy as usize] = 7;
        let stats = Stats { capacity: 5, ..Stats::default() }.with_counters(counters);
        assert_eq!((stats.puts_busy, stats.get("puts_busy"), stats.get("capacity")), (7, Some(7), Some(5)));
        assert_eq!(stats.get("no such"), None);
        assert_eq!(std::mem::size_of::<Stats>(), TABLE.len() * 8, "C reads the fields as an array of 64-bit numbers");
    }

    #[test]
    fn lookups_are_hits_and_misses_of_ids_of_this_store() {
        let stats = Stats { hits: 6, misses_absent: 1, misses_damaged: 1, misses_foreign: 9, ..Stats::default() };
        assert_eq!((stats.lookups(), stats.hit_rate()), (8, Some(0.75)));
        let refused = Stats { hits_refused: 6, ..stats };
        assert_eq!(refused.hit_rate(), Some(0.0), "sessions that are found and resume nothing are no success");
        let later = Stats { hits: 8, sessions: 3, ..stats }.since(&stats);
        assert_eq!(later, Stats { hits: 2, sessions: 3, ..Stats::default() });
    }
}
