//! Where messages go: to the host's function, at most one a second per topic. Without one, nowhere.
//!
//! The host's function may take as long as it likes: a terminal that is stopped, a pipe that nobody reads. So it is never called
//! while this thread holds a lock that others wait for: who takes such a lock holds a [`Silence`] with it.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use crate::sys::clock;
use crate::sys::fork_safe::RcuCell;
use crate::sys::thread_specific::ThreadSpecific;

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
    /// The memory or the disk below the store.
    Backing,
    /// Readers: slots, clashing process ids.
    Readers,
    /// What the program has changed of what attaching set.
    Host,
    /// Sessions that OpenSSL refuses.
    Refusals,
    /// Programs with different versions of OpenSSL.
    OpenSsl,
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

/// Messages that a thread keeps during a silence; further ones are lost. There are so many topics.
const KEPT: usize = TOPICS;

/// A message that is said when the silence ends.
struct Kept {
    sink: Arc<Sink>,
    level: i32,
    line: CString,
}

/// The silence of one thread.
#[derive(Default)]
struct Silenced {
    /// Silences that it holds, one within the other.
    depth: usize,
    kept: Vec<Kept>,
}

static SILENCED: ThreadSpecific<Silenced> = ThreadSpecific::new();

/// While one is held by a thread, what the thread has to say is kept. It is said when the last one ends.
pub(crate) struct Silence {
    /// It is its thread's.
    _thread: PhantomData<*mut ()>,
}

impl Silence {
    pub(crate) fn begin() -> Silence {
        // A thread that can have no place to keep messages in says nothing: see `hand_over`.
        let _ = SILENCED.with(|silenced| silenced.depth += 1);
        Silence { _thread: PhantomData }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let kept = SILENCED.with(|silenced| {
            silenced.depth = silenced.depth.saturating_sub(1);
            if silenced.depth == 0 && !std::thread::panicking() {
                std::mem::take(&mut silenced.kept)
            } else {
                Vec::new()
            }
        });
        for Kept { sink, level, line } in kept.unwrap_or_default() {
            sink(level, &line);
        }
    }
}

/// Hands a message to the host, or keeps it while this thread is silent.
fn hand_over(message: Kept) {
    let now = SILENCED.with(|silenced| {
        if silenced.depth == 0 {
            return Some(message);
        }
        if silenced.kept.len() < KEPT {
            silenced.kept.push(message);
        }
        None
    });
    if let Some(Some(Kept { sink, level, line })) = now {
        sink(level, &line);
    }
}

/// The messages of one store.
pub(crate) struct Log {
    sink: RcuCell<Option<Arc<Sink>>>,
    /// Per topic: when it last spoke, and how often it was held back since.
    last: [AtomicU64; TOPICS],
    held_back: [AtomicU64; TOPICS],
    /// A new control file was made before anybody could be told.
    control_is_new: AtomicBool,
    /// What there is to say of the memory or the disk below it, found out as early.
    backing: RcuCell<(i32, String)>,
    backing_is_said: AtomicBool,
}

impl Log {
    pub(crate) const fn new() -> Log {
        Log {
            sink: RcuCell::new(),
            last: [const { AtomicU64::new(0) }; TOPICS],
            held_back: [const { AtomicU64::new(0) }; TOPICS],
            control_is_new: AtomicBool::new(false),
            backing: RcuCell::new(),
            backing_is_said: AtomicBool::new(false),
        }
    }

    /// Sets where messages go; `None` for nowhere.
    pub(crate) fn set(&self, sink: Option<Sink>) {
        self.sink.set(sink.map(Arc::new));
        self.say_what_is_owed();
    }

    /// Whether the host listens.
    pub(crate) fn is_heard(&self) -> bool {
        matches!(self.sink.get(), Some(Some(_)))
    }

    /// Says that a damaged control file was replaced. That happens where a store is opened, before the host has a handle to set
    /// a function for: then it is said when there is one.
    pub(crate) fn control_was_replaced(&self) {
        self.control_is_new.store(true, Ordering::Relaxed);
        self.say_what_is_owed();
    }

    /// Says, once and as soon as somebody listens, what was found out when the store was opened.
    pub(crate) fn was_found_at_opening(&self, level: i32, text: String) {
        if self.backing.get().is_none() {
            self.backing.set((level, text));
            self.say_what_is_owed();
        }
    }

    fn say_what_is_owed(&self) {
        if let Some((level, text)) = self.backing.get() {
            if self.is_heard() && !self.backing_is_said.swap(true, Ordering::Relaxed) {
                self.say(Topic::Backing, *level, || text.clone());
            }
        }
        if self.is_heard() && self.control_is_new.swap(false, Ordering::Relaxed) {
            self.say(Topic::Damage, WARNING, || "the control file was gone or damaged: a new one begins".to_owned());
        }
    }

    /// Says it, unless this topic spoke within the last second; during a [`Silence`] at its end. The text is made only when it
    /// is said.
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
        hand_over(Kept { sink: Arc::clone(sink), level, line: CString::new(line).unwrap_or_default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

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
    #[test]
    fn what_is_said_during_a_silence_is_heard_when_the_last_one_ends() {
        let log = Log::new();
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        log.set(Some(Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })));
        let outer = Silence::begin();
        let inner = Silence::begin();
        log.say(Topic::Busy, WARNING, || "slow".to_owned());
        drop(inner);
        assert_eq!(heard.load(Ordering::Relaxed), 0, "the host is called within an outer silence");
        drop(outer);
        assert_eq!(heard.load(Ordering::Relaxed), 1);
        log.say(Topic::Full, WARNING, || "full".to_owned());
        assert_eq!(heard.load(Ordering::Relaxed), 2, "a silence that is over keeps messages");
    }
}
