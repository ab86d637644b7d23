//! What the host is told once for each cache: it holds until somebody changes the host.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::log::{Log, Topic, WARNING};

/// See the module's first line.
#[derive(Clone, Copy)]
pub(super) enum Notice {
    /// OpenSSL refuses sessions that were found.
    Refused,
    /// A callback was replaced after attaching.
    Callbacks,
    /// Session caching was switched off after attaching.
    CacheMode,
    /// A client's connection was changed after a session was offered.
    ClientChanged,
}

/// Those that were said, a bit each.
#[derive(Default)]
pub(super) struct Notices(AtomicU8);

impl Notices {
    pub(super) fn say(&self, notice: Notice, log: &Log, text: &str) {
        let bit = 1 << notice as u8;
        if self.0.load(Ordering::Relaxed) & bit != 0 || self.0.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let topic = if matches!(notice, Notice::Refused) { Topic::Refusals } else { Topic::Host };
        log.say(topic, WARNING, || text.to_owned());
    }
}
