//! A cache: one open directory with one set of options. The whole C API in Rust; what takes an SSL_CTX is safe with the
//! feature `openssl`.

mod client;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "openssl")]
use foreign_types::ForeignTypeRef;
#[cfg(feature = "openssl")]
use openssl::ssl::{SslContextBuilder, SslStream};

use crate::log::Sink;
use crate::options::Options;
use crate::stats::Stats;
use crate::status::{Error, Result, Status};
use crate::store::{self, Header, Miss, Namespace, Store};
use crate::tls::{self, Binding};

pub use self::client::resume_from_raw;

/// A TLS session cache shared by all processes that open the same directory.
///
/// Any thread may use it at any time, and so may any child process that inherits it. A dropped cache lives on in the
/// SSL_CTXs that are attached to it.
pub struct Cache {
    binding: Arc<Binding>,
}

impl Cache {
    /// Opens the cache in the directory `path`, which is created when it is missing. Nothing stays open: the first session
    /// opens the store, in whichever process it happens.
    ///
    /// # Errors
    /// [`Status::Invalid`] for options or a directory that are not acceptable, [`Status::System`] with the system's reason,
    /// [`Status::Format`] for a directory of an incompatible version, [`Status::Full`] when 64 caches of different directories or options are open in this process
    /// or the device is full, [`Status::Mismatch`] when this process has the directory open with another `key`, `deadline` or `local`,
    /// [`Status::OpenSsl`] when libcrypto has no AES-256-GCM.
    /// A server whose cache cannot be opened goes on without it.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Cache> {
        let open = || Binding::new(Store::open(path.as_ref(), options)?, options);
        let binding = match open() {
            // What nobody uses any more may take the room, or hold the directory with other options.
            Err(error) if matches!(error.status, Status::Full | Status::Mismatch) && tls::end_idle() => open(),
            opened => opened,
        };
        Ok(Cache { binding: binding? })
    }

    /// Makes an SSL_CTX look up and store its server sessions here: before the first connection, and on every SSL_CTX that a
    /// servername callback may switch to. It keeps the cache until it is freed.
    ///
    /// Set a session id context if you ask clients for certificates: OpenSSL resumes nothing without one. What attaching sets
    /// is in `sesscache.h`, at `sesscache_attach`.
    ///
    /// # Errors
    /// [`Status::Invalid`] when it is attached to another cache or has session callbacks of its own, [`Status::Mismatch`] when
    /// the crate `openssl` is linked with another OpenSSL than this one, [`Status::OpenSsl`] when memory runs out. The SSL_CTX
    /// is then unchanged.
    #[cfg(feature = "openssl")]
    pub fn attach(&self, ctx: &mut SslContextBuilder) -> Result<()> {
        // SAFETY: `attach_raw` demands a live SSL_CTX that no other thread uses: the builder owns it, borrowed alone.
        unsafe { self.attach_raw(ctx.as_ptr()) }
    }

    /// `attach` for programs with other bindings to OpenSSL.
    ///
    /// # Safety
    /// `ctx` is a live SSL_CTX that no other thread uses before the call returns.
    ///
    /// # Errors
    /// As for `attach`.
    pub unsafe fn attach_raw(&self, ctx: *mut tls::SSL_CTX) -> Result<()> {
        // SAFETY: `attach` demands what this function demands.
        unsafe { tls::attach(&self.binding, ctx) }
    }

    /// Issues an id for a record with this life: 32 bytes that look random, and that the store keeps in the order of their
    /// expiry, at a fraction of the cost of an id that the application chooses. [`Cache::each`] does not visit them.
    ///
    /// # Errors
    /// [`Status::System`] when the kernel has no random bytes.
    pub fn issue_id(&self, life: Duration) -> Result<[u8; 32]> {
        self.store().issue_id(life).ok_or_else(Error::no_random)
    }

    /// Stores a record of the application's own until `expires` (seconds since 1970). A record with the same id is replaced.
    ///
    /// # Errors
    /// [`Status::Invalid`] when the id has not 1 to 255 bytes, [`Status::Full`] for more than 65,536 bytes or when no room can
    /// be made, [`Status::Busy`] when another process held the store past the deadline.
    pub fn put(&self, id: &[u8], data: &[u8], expires: i64) -> Result<()> {
        let expires = u32::try_from(expires.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
        let mut header = Header { expires, id_len: id.len() as u8, ..Header::default() };
        self.store().put_opaque(id, self.namespace(), &mut header, data)
    }

    /// Calls `f` with the data of a record of the application's own.
    ///
    /// # Errors
    /// [`Status::NotFound`] when there is no such record or it has expired, [`Status::Invalid`] when the id has not 1 to 255
    /// bytes, [`Status::Busy`] when the store could not be read.
    pub fn get<R>(&self, id: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.find(id, false, f)
    }

    /// Calls `f` with the data of a record of the application's own and deletes it: of all callers in all processes, one gets it.
    ///
    /// # Errors
    /// As for [`Cache::get`].
    pub fn take<R>(&self, id: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.find(id, true, f)
    }

    fn find<R>(&self, id: &[u8], take: bool, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        checked(id)?;
        self.store().get_opaque(id, self.namespace(), take, |_, data| f(data)).map_err(|miss| match miss {
            Miss::Unavailable => Error::new(Status::Busy, "the store could not be read"),
            _ => Error::new(Status::NotFound, "no such record"),
        })
    }

    /// Stores an SSL_SESSION under its id until it expires, as a record of the application's own: for servers that keep their own
    /// session callbacks.
    ///
    /// # Safety
    /// `session` is NULL or a live SSL_SESSION of the libssl that this library uses, whose fields no other thread changes.
    ///
    /// # Errors
    /// [`Status::Invalid`] for NULL and a session without an id, [`Status::OpenSsl`] when memory runs out, [`Status::Mismatch`]
    /// when this was built for another OpenSSL, and as for [`Cache::put`].
    pub unsafe fn put_session_raw(&self, session: *mut tls::SSL_SESSION) -> Result<()> {
        // SAFETY: `put_session` demands what this function demands.
        unsafe { tls::put_session(&self.binding, session) }
    }

    /// The SSL_SESSION that [`Cache::put_session_raw`] stored under this id: a new one, which the caller frees.
    ///
    /// # Errors
    /// [`Status::NotFound`] when there is none or it has expired, [`Status::Mismatch`] when this was built for another OpenSSL,
    /// and as for [`Cache::get`].
    pub fn get_session_raw(&self, id: &[u8]) -> Result<*mut tls::SSL_SESSION> {
        checked(id)?;
        tls::get_session(&self.binding, id)
    }

    /// Calls `f` with id, data and expiry of every record of the application's own in this namespace, until it returns false.
    ///
    /// # Errors
    /// [`Status::System`] when the store cannot be read.
    pub fn each(&self, mut f: impl FnMut(&[u8], &[u8], i64) -> bool) -> Result<()> {
        self.store().each(self.namespace(), |id, data, expires| f(id, data, i64::from(expires)))
    }

    /// Deletes the session or record under `id`, in all processes.
    ///
    /// # Errors
    /// [`Status::NotFound`] when there is none, [`Status::Invalid`] when the id has not 1 to 255 bytes, [`Status::Busy`] when
    /// another process held the store past the deadline.
    pub fn remove(&self, id: &[u8]) -> Result<()> {
        checked(id)?;
        match self.store().remove(id, self.namespace())? {
            true => Ok(()),
            false => Err(Error::new(Status::NotFound, "no such session or record")),
        }
    }

    /// Deletes all sessions and records, in all processes, at once, and replaces the sealing key.
    ///
    /// # Errors
    /// [`Status::System`] or [`Status::Full`] when the new store cannot be made.
    pub fn flush(&self) -> Result<()> {
        self.store().flush()
    }

    /// Opens all that serving needs, in this process, and opens nothing by path from then on: for a process that is about to give
    /// up the file system. Its children open nothing either, and keep their sessions in memory. So does this process when the
    /// store changes so that it would have to be opened again.
    ///
    /// # Errors
    /// [`Status::System`] with the system's reason, and what else [`Cache::open`] returns, when the store cannot be opened.
    /// Nothing is opened by path later in that case either.
    pub fn hold(&self) -> Result<()> {
        self.store().hold()
    }

    /// Deletes at most `most` expired sessions and records, and returns their number. Not needed: each store of a session
    /// deletes some expired ones.
    ///
    /// # Errors
    /// [`Status::Busy`] when another process held the store past the deadline.
    pub fn sweep(&self, most: usize) -> Result<usize> {
        self.store().sweep(most)
    }

    /// Reads all counters, summed over all processes.
    ///
    /// Where the store cannot be opened, `sessions` and `used_bytes` are 0.
    ///
    /// # Errors
    /// [`Status::System`] or [`Status::Busy`] when the open store cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        self.store().stats()
    }

    /// Reads the counters as they were a minute ago, and how long ago that is exactly: less than a minute in a young store.
    /// `None` when the store has not counted yet.
    ///
    /// # Errors
    /// As for [`Cache::stats`].
    pub fn recent(&self) -> Result<Option<(Duration, Stats)>> {
        self.store().recent()
    }

    /// Sends messages about this directory to `sink`; `None` drops them. The caches on one directory share the sink.
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

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("path", &self.path()).finish_non_exhaustive()
    }
}

fn checked(id: &[u8]) -> Result<()> {
    match id.len() {
        1..=255 => Ok(()),
        _ => Err(Error::invalid("an id has 1 to 255 bytes")),
    }
}

/// Tells whether [`Cache::open`] would accept these options, and touches nothing: for a server that checks its configuration
/// without starting.
///
/// # Errors
/// [`Status::Invalid`] for an owner or group that does not exist, or a key file that is missing.
pub fn check(options: &Options) -> Result<()> {
    store::check(options)
}

/// Detaches an SSL_CTX: session cache mode, options and timeout are as before `attach`, the callbacks and the id
/// generator are removed. Callbacks, mode and timeout that were set since stay.
///
/// # Errors
/// [`Status::NotFound`] when it is not attached.
#[cfg(feature = "openssl")]
pub fn detach(ctx: &mut SslContextBuilder) -> Result<()> {
    // SAFETY: `detach_raw` demands a live SSL_CTX that no other thread uses: the builder owns it, borrowed alone.
    unsafe { detach_raw(ctx.as_ptr()) }
}

/// `detach` for programs with other bindings to OpenSSL.
///
/// # Safety
/// `ctx` is a live SSL_CTX that no other thread uses before the call returns.
///
/// # Errors
/// As for `detach`.
pub unsafe fn detach_raw(ctx: *mut tls::SSL_CTX) -> Result<()> {
    // SAFETY: `detach` demands what this function demands.
    unsafe { tls::detach(ctx) }
}

/// Gives a connection that was made before its SSL_CTX was attached or detached what SSL_new(3) would copy from the SSL_CTX now.
/// For programs that learn of an SSL_CTX only when it makes its first connection.
///
/// # Safety
/// `ssl` is a live connection whose handshake has not begun, and that no other thread uses before the call returns.
///
/// # Errors
/// [`Status::NotFound`] when the SSL_CTX was never attached, [`Status::Invalid`] when the connection has none yet.
pub unsafe fn inherit_raw(ssl: *mut tls::SSL) -> Result<()> {
    // SAFETY: `inherit` demands what this function demands.
    unsafe { tls::inherit(ssl) }
}

/// Ends the login behind this connection: nothing that goes back to the same full handshake resumes any more, in any process,
/// and nothing more of it is stored. For a logout, or for a client certificate that was rejected.
///
/// # Errors
/// [`Status::NotFound`] when the connection has no session in a cache.
#[cfg(feature = "openssl")]
pub fn forget<S>(stream: &mut SslStream<S>) -> Result<()> {
    // SAFETY: `forget_raw` demands a live connection that no other thread uses: the stream owns it, borrowed alone. A `&SslRef`
    // would not do, which several threads may have at once.
    unsafe { forget_raw(stream.ssl().as_ptr()) }
}

/// `forget` for programs with other bindings to OpenSSL.
///
/// # Safety
/// `ssl` is a live connection that no other thread uses before the call returns.
///
/// # Errors
/// As for `forget`.
pub unsafe fn forget_raw(ssl: *mut tls::SSL) -> Result<()> {
    // SAFETY: `forget` demands what this function demands.
    unsafe { tls::forget(ssl) }
}
