//! Which sessions and records a verb is to deal with, by the hashes of their names.

use sesscache::inspect::{Inspect, Position, Record};

use crate::arguments::Only;
use crate::failure::Failure;

/// Records per snapshot.
pub const BATCH: usize = 256;

/// Hashes of the names that were given.
#[derive(Clone, Copy)]
pub struct Filter {
    /// Of servers' sessions, and of clients'.
    namespace: Option<(u32, u32)>,
    server_name: Option<u64>,
}

impl Filter {
    pub fn of(inspect: &Inspect, only: &Only) -> Filter {
        Filter {
            namespace: only
                .namespace
                .as_ref()
                .map(|name| (inspect.namespace_hash(name), inspect.client_namespace_hash(name))),
            server_name: only.server_name.as_ref().map(|name| inspect.server_name_hash(name)),
        }
    }

    /// Whether no name was given, so that all are meant.
    pub fn is_all(self) -> bool {
        self.namespace.is_none() && self.server_name.is_none()
    }

    /// Whether a record is meant. What has no header that can be read is of no name.
    pub fn takes(self, record: &Record) -> bool {
        let Some(header) = &record.header else { return self.is_all() };
        self.namespace.is_none_or(|(servers, clients)| [servers, clients].contains(&header.namespace))
            && self.server_name.is_none_or(|hash| header.server_name == hash)
    }
}

/// All records for which `which` says so.
pub fn collect(inspect: &mut Inspect, which: impl Fn(&Record) -> bool) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    let mut position = Position::default();
    loop {
        let records = inspect.batch(&mut position, BATCH)?;
        if records.is_empty() {
            return Ok(found);
        }
        found.extend(records.into_iter().filter(&which));
    }
}
