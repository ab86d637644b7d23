//! Which LMDB this program runs with. It need not be the bundled one: `.cargo/config.toml` does not count where this crate is a
//! dependency, and a program that is linked with another LMDB may have its functions called here.

use std::fmt;

use lmdb_sys as ffi;

use crate::status::{Error, Result, Status};

/// A version of LMDB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LmdbVersion(i32, i32, i32);

impl LmdbVersion {
    /// The one in use.
    pub(crate) fn running() -> LmdbVersion {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: mdb_version writes three integers through the pointers, which are to live ones. Its result, a text, is not
        // looked at.
        unsafe { ffi::mdb_version(&mut major, &mut minor, &mut patch) };
        LmdbVersion(major, minor, patch)
    }

    /// Refuses a version under which a process that closes the store destroys the mutexes that the others use: introduced
    /// with ITS#9278, taken back with ITS#10095.
    pub(crate) fn check(self) -> Result<()> {
        if (LmdbVersion(0, 9, 26)..=LmdbVersion(0, 9, 31)).contains(&self) {
            let text = format!("LMDB {self} is in use, and 0.9.26 to 0.9.31 destroy mutexes that other processes use");
            let remedy = "set LIBLMDB_NO_PKG_CONFIG=1 when building, which takes the LMDB that comes with lmdb-rkv-sys";
            return Err(Error::new(Status::Mismatch, text).remedy(remedy));
        }
        Ok(())
    }
}

impl fmt::Display for LmdbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_destroy_live_mutexes_are_refused_and_no_others() {
        for patch in 26..=31 {
            let error = LmdbVersion(0, 9, patch).check().expect_err("it destroys mutexes");
            assert_eq!(error.status, Status::Mismatch);
            for words in
                [&format!("LMDB 0.9.{patch} is"), "0.9.26 to 0.9.31", "mutexes", "; set LIBLMDB_NO_PKG_CONFIG=1"]
            {
                assert!(error.to_string().contains(words), "{error} does not say: {words}");
            }
        }
        for (major, minor, patch) in [(0, 9, 24), (0, 9, 25), (0, 9, 32), (0, 9, 70), (1, 0, 0), (0, 10, 27)] {
            assert!(LmdbVersion(major, minor, patch).check().is_ok(), "{major}.{minor}.{patch} is refused");
        }
        assert!(LmdbVersion::running().check().is_ok(), "this very program is refused");
    }
}
