//! How the newest records opened when a process last tried, as the control file has it.

/// How the newest records opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Those that opened.
    pub opened: u8,
    /// Those that did not.
    pub failed: u8,
}

/// A trial as it is noted in the control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedTrial {
    pub(crate) trial: Trial,
    /// The second of it.
    pub(crate) at: u64,
    /// The keys are those of a file outside of the directory.
    pub(crate) key_is_foreign: bool,
}

impl Trial {
    /// Whether the keys at hand are not those of the newest records.
    pub fn is_failure(self) -> bool {
        self.failed > 0 && self.opened == 0
    }

    /// Of several generations.
    pub(crate) fn and(self, other: Trial) -> Trial {
        Trial { opened: self.opened + other.opened, failed: self.failed + other.failed }
    }
}

impl NotedTrial {
    pub(super) fn word(self) -> u64 {
        let Trial { opened, failed } = self.trial;
        self.at << 17 | u64::from(self.key_is_foreign) << 16 | u64::from(opened) << 8 | u64::from(failed)
    }

    /// `None` when nothing was noted.
    pub(super) fn of(word: u64) -> Option<NotedTrial> {
        let [failed, opened, ..] = word.to_le_bytes();
        let trial = Trial { opened, failed };
        (word != 0).then_some(NotedTrial { trial, at: word >> 17, key_is_foreign: word >> 16 & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_read_as_it_was_noted() {
        let noted = NotedTrial { trial: Trial { opened: 3, failed: 4 }, at: 1_800_000_000, key_is_foreign: true };
        assert_eq!(NotedTrial::of(noted.word()), Some(noted));
        assert_eq!(NotedTrial::of(0), None);
        assert!(Trial { opened: 0, failed: 1 }.is_failure() && !noted.trial.is_failure());
    }
}
