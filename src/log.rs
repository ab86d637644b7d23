//! Where messages go: to the host's function, at most one a second per topic. Without one, nowhere.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sys::clock;
use crate::sys::fork_safe::RcuCell;

/// Receives a syslog(3) level and one line.
pub type Sink = Box<dyn Fn(i32, &CStr) + Send + Sync>;

/// What a message is about; each topic is limited on its own.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Topic {
    /// The store could not be opened.
    Open,
    /// A writer waited past the deadline.
    Busy,
    /// No room.
    Full,
    /// A damaged file or record.
    Damage,
    /// A new generation began.
    Generation,
    /// The sealing keys.
    Keys,
    /// Which boot of the machine it is.
    Boot,
    /// Readers: slots, clashing process ids.
    Readers,
    /// A contained fault.
    Bug,
}

const TOPICS: usize = Topic::Bug as usize + 1;

/// syslog(3) LOG_ERR.
pub(crate) const ERR: i32 = 3;
/// syslog(3) LOG_WARNING.
pub(crate) const WARNING: i32 = 4;
/// syslog(3) LOG_NOTICE.
pub(crate) const NOTICE: i32 = 5;

/// The messages of one store.
pub(crate) struct Log {
    sink: RcuCell<Option<Sink>>,
    /// Per topic: when it last spoke, and how often it was held back since.
    last: [AtomicU64; TOPICS],
    held_back: [AtomicU64; TOPICS],
    /// A new control file was made before anybody could be told.
    control_is_new: AtomicBool,
}

impl Log {
    pub(crate) const fn new() -> Log {
        Log {
            sink: RcuCell::new(),
            last: [const { AtomicU64::new(0) }; TOPICS],
            held_back: [const { AtomicU64::new(0) }; TOPICS],
            control_is_new: AtomicBool::new(false),
        }
    }

    /// Sets where messages go; `None` for nowhere.
    pub(crate) fn set(&self, sink: Option<Sink>) {
        self.sink.set(sink);
        self.say_what_is_owed();
    }

    /// Says that a damaged control file was replaced. That happens where a store is opened, before the host has a handle to set
    /// a function for: then it is said when there is one.
    pub(crate) fn control_was_replaced(&self) {
        self.control_is_new.store(true, Ordering::Relaxed);
        self.say_what_is_owed();
    }

    fn say_what_is_owed(&self) {
        if matches!(self.sink.get(), Some(Some(_))) && self.control_is_new.swap(false, Ordering::Relaxed) {
            self.say(Topic::Damage, WARNING, || "the control file was gone or damaged: a new one begins".to_owned());
        }
    }

    /// Says it, unless this topic spoke within the last second. The text is made only when it is said.
    pub(crate) fn say(&self, topic: Topic, level: i32, text: impl FnOnce() -> String) {
        let Some(Some(sink)) = self.sink.get() else {
            return;
        };
        let now = clock::ticks();
        let last = &self.last[topic as usize];
        let then = last.load(Ordering::Relaxed);
        let due = then == 0 || now.saturating_sub(then) >= clock::SECOND;
        if !due || last.compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.held_back[topic as usize].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let more = self.held_back[topic as usize].swap(0, Ordering::Relaxed);
        let mut line = format!("sesscache: {}", text());
        if more > 0 {
            line.push_str(&format!(" ({more} more)"));
        }
        line.retain(|c| c != '\0');
        sink(level, &CString::new(line).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::Arc;

    #[test]
    fn a_storm_on_one_topic_is_one_message_and_other_topics_are_heard() {
        let log = Log::new();
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        log.say(Topic::Busy, WARNING, || unreachable!("nobody listens"));
        log.set(Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })));
        for _ in 0..100 {
            log.say(Topic::Busy, WARNING, || "slow".to_owned());
        }
        log.say(Topic::Full, WARNING, || "full".to_owned());
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
