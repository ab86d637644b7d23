//! A cache: one open directory with one set of options. The whole C API as safe Rust, but for what takes an SSL_CTX.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::log::Sink;
use crate::options::Options;
use crate::stats::Stats;
use crate::status::{Error, Result, Status};
use crate::store::{self, Header, Miss, Namespace, Store};
use crate::tls::{self, Binding};

/// A TLS session cache shared by all processes that open the same directory.
///
/// Any thread may use it at any time, and so may any child that inherits it.
pub struct Cache {
    binding: Arc<Binding>,
}

impl Cache {
    /// Opens the cache in the directory `path`, which is made when it is missing. Nothing stays open: the first session
    /// does that, in whichever process it happens.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Cache> {
        let store = Store::open(path.as_ref(), options)?;
        Ok(Cache { binding: Binding::new(store, options)? })
    }

    /// Makes an SSL_CTX look up and store its sessions here. It keeps the cache alive until it is freed.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX that no other thread is changing.
    pub unsafe fn attach(&self, ctx: *mut tls::SSL_CTX) -> Result<()> {
        // SAFETY: by contract.
        unsafe { tls::attach(&self.binding, ctx) }
    }

    /// An id for a record that lives so long: 32 bytes that look random and are in time order in the store, where they
    /// cost a fraction of what an id of the application's own choosing costs. [`Cache::each`] does not visit them.
    pub fn issue_id(&self, life: Duration) -> Result<[u8; 32]> {
        self.store().issue_id(life).ok_or_else(|| Error::new(Status::Busy, "the store could not be asked"))
    }

    /// Stores an application's own record until `expires` (seconds since 1970), replacing one of that id.
    pub fn put(&self, id: &[u8], data: &[u8], expires: i64) -> Result<()> {
        let expires = u32::try_from(expires.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
        let mut header = Header { expires, id_len: id.len() as u8, ..Header::default() };
        self.store().put_opaque(id, self.namespace(), &mut header, data)
    }

    /// Calls `f` with the data of an application's own record.
    pub fn get<R>(&self, id: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.find(id, false, f)
    }

    /// Calls `f` with the data of an application's own record and deletes it: of all who ask, in all processes, one gets it.
    pub fn take<R>(&self, id: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.find(id, true, f)
    }

    fn find<R>(&self, id: &[u8], take: bool, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        if id.is_empty() || id.len() > 255 {
            return Err(Error::invalid("an id has 1 to 255 bytes"));
        }
        self.store().get_opaque(id, self.namespace(), take, |_, data| f(data)).map_err(|miss| match miss {
            Miss::Unavailable => Error::new(Status::Busy, "the store could not be asked"),
            _ => Error::new(Status::NotFound, "no such record"),
        })
    }

    /// Calls `f` with id, data and expiry of every record of the application, until it returns false.
    pub fn each(&self, mut f: impl FnMut(&[u8], &[u8], i64) -> bool) -> Result<()> {
        self.store().each(self.namespace(), |id, data, expires| f(id, data, i64::from(expires)))
    }

    /// Deletes the session or record under `id`.
    pub fn remove(&self, id: &[u8]) -> Result<()> {
        if id.is_empty() || id.len() > 255 {
            return Err(Error::invalid("an id has 1 to 255 bytes"));
        }
        match self.store().remove(id, self.namespace())? {
            true => Ok(()),
            false => Err(Error::new(Status::NotFound, "no such session or record")),
        }
    }

    /// Forgets everything, in all processes, at once.
    pub fn flush(&self) -> Result<()> {
        self.store().flush()
    }

    /// Deletes at most `most` expired sessions; how many it were.
    pub fn sweep(&self, most: usize) -> Result<usize> {
        self.store().sweep(most)
    }

    /// A reading of all counters, summed over all processes.
    pub fn stats(&self) -> Result<Stats> {
        self.store().stats()
    }

    /// The counters as they were a minute ago, and how long ago that is exactly: less than a minute in a young store, `None`
    /// in one that has not counted yet.
    pub fn recent(&self) -> Result<Option<(Duration, Stats)>> {
        self.store().recent()
    }

    /// Sets where messages about this directory go; `None` for nowhere.
    pub fn set_log(&self, sink: Option<Sink>) {
        self.store().log.set(sink);
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.store().path()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.binding.store
    }

    fn namespace(&self) -> Namespace<'_> {
        Namespace(&self.binding.policy.namespace)
    }
}

/// Whether [`Cache::open`] would take these options. Touches nothing.
pub fn check(options: &Options) -> Result<()> {
    store::check(options)
}

/// Makes an SSL_CTX forget its cache. Connections made before keep what they have.
///
/// # Safety
/// `ctx` is a live SSL_CTX that no other thread is changing.
pub unsafe fn detach(ctx: *mut tls::SSL_CTX) -> Result<()> {
    // SAFETY: by contract.
    unsafe { tls::detach(ctx) }
}

/// Deletes every session that could resume this connection, in all processes.
///
/// # Safety
/// `ssl` is a live connection that no other thread is using.
pub unsafe fn forget(ssl: *mut tls::SSL) -> Result<()> {
    // SAFETY: by contract.
    unsafe { tls::forget(ssl) }
}
