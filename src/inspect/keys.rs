//! What is known of the sealing keys: from a trial of this process if it may read them, or else from what the processes that have
//! them have noted.

use std::fs;
use std::io;

use super::Inspect;
use crate::status::Result;
use crate::store::keys::Keys;
use crate::store::seal::Sealer;
use crate::store::trial::Trial;
use crate::store::try_keys;
use crate::sys::clock;

/// What is known of the sealing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// The newest records were tried, so many seconds ago.
    Tried(Trial, u64),
    /// The key file of the store is not there.
    Missing,
    /// Nobody who has the keys has tried them.
    Unknown,
}

impl Inspect {
    /// What is known of the sealing keys.
    pub fn key_verdict(&mut self) -> Result<KeyVerdict> {
        let noted = self.control.trial();
        // The servers' keys are in a file that nobody has named here.
        let is_elsewhere = noted.is_some_and(|noted| noted.key_is_foreign) && !self.dir.key_is_foreign;
        if !is_elsewhere {
            if let Ok(keys) = Keys::load(&self.dir) {
                return self.try_keys(Sealer::new(keys)).map(|trial| KeyVerdict::Tried(trial, 0));
            }
            let is_missing = fs::symlink_metadata(&self.dir.key).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            if is_missing && noted.is_some() {
                return Ok(KeyVerdict::Missing);
            }
        }
        let tried = noted.map(|noted| KeyVerdict::Tried(noted.trial, clock::seconds().saturating_sub(noted.at)));
        Ok(tried.unwrap_or(KeyVerdict::Unknown))
    }

    fn try_keys(&mut self, mut sealer: Sealer) -> Result<Trial> {
        let mut all = Trial::default();
        for view in &mut self.views {
            let newest = view.read(try_keys::newest)?;
            all = all.and(try_keys::open(&newest, &mut sealer, view.generation.page()));
        }
        Ok(all)
    }
}
