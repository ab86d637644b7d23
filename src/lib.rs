//! A TLS session cache shared by all processes of a server, on OpenSSL's external cache hooks and LMDB.
//!
//! OpenSSL's own cache lives in one process: a server that forks, restarts or has neighbours loses resumption. With this
//! library, TLS 1.2 and TLS 1.3 sessions made in one process resume in every other that opened the same directory.
//!
//! # TLS servers
//!
//! With the feature `openssl`, a cache attaches to the contexts of the crate [`openssl`](https://docs.rs/openssl). Nothing else
//! changes in the server, and processes may fork before or after.
//!
//! ```
//! # #[cfg(feature = "openssl")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("sesscache-doc-attach-{}", std::process::id()));
//! use openssl::ssl::{SslContext, SslMethod};
//! use sesscache::Cache;
//!
//! let mut context = SslContext::builder(SslMethod::tls_server())?;
//! context.set_session_id_context(b"myserver")?;
//! match Cache::open(&directory, &"capacity=64MiB ttl=2h".parse()?).and_then(|cache| cache.attach(&mut context)) {
//!     Ok(()) => {}
//!     // A server whose cache cannot be opened goes on without it.
//!     Err(error) => eprintln!("no session cache: {error}"),
//! }
//! let context = context.build();
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "openssl"))]
//! # fn main() {}
//! ```
//!
//! `examples/prefork.rs` is a whole server. Programs with other bindings to OpenSSL use [`Cache::attach_raw`], and C programs
//! `include/sesscache.h`, which comes with the feature `capi`. That feature also brings a global allocator with a reserve for
//! when memory runs out; without it, a program has the allocator of its choice.
//!
//! # Records
//!
//! Servers that keep their own session callbacks, and programs with other things to share, store records:
//!
//! ```
//! # let directory = std::env::temp_dir().join(format!("sesscache-doc-records-{}", std::process::id()));
//! use sesscache::{Cache, Options, Status};
//! use std::time::{Duration, SystemTime};
//!
//! let cache = Cache::open(&directory, &Options::parse("capacity=1MiB")?)?;
//! let expires = SystemTime::now() + Duration::from_secs(60);
//! let expires = expires.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
//! cache.put(b"id", b"for all processes", expires as i64)?;
//! assert_eq!(cache.get(b"id", |data| data.to_vec())?, b"for all processes");
//! cache.remove(b"id")?;
//! assert_eq!(cache.get(b"id", |_| ()).unwrap_err().status, Status::NotFound);
//! assert_eq!(cache.stats()?.sessions, 0);
//! # drop(cache);
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Promises
//!
//! Any trouble here costs a full handshake, never a failed one; a session never resumes under another server name, namespace or
//! session id context; early data is accepted once over all processes; the size is bounded and an insert never fails for it;
//! secrets are sealed, private and wiped; lookups take no lock.
#![warn(missing_docs)]

// Where things are:
//
// - `options`, `status`, `stats`: one table each; they make the documents too.
// - `cache`: the API in safe Rust. `capi`: the same for C, a thin leaf.
// - `inspect`: a store seen from outside, for the program.
// - `tls`: what is set on an SSL_CTX, and the callbacks.
// - `store`: records under ids in LMDB; knows nothing of TLS.
// - `log`, `sys`: messages; libc and libcrypto behind safe faces.

mod cache;
#[cfg(feature = "capi")]
mod capi;
#[cfg(all(feature = "capi", any(test, fuzzing)))]
#[doc(hidden)]
#[allow(missing_docs)]
#[path = "../fuzz/harness/mod.rs"]
pub mod fuzzing;
#[doc(hidden)]
pub mod inspect;
mod log;
mod options;
mod stats;
mod status;
mod store;
mod sys;
mod tls;

pub use cache::{check, detach_raw, forget_raw, inherit_raw, resume_from_raw, Cache};
#[cfg(feature = "openssl")]
pub use cache::{detach, forget};
pub use log::Sink;
pub use options::{OptionRow, Options, Remove, SingleUse, Sni, Tickets, TABLE as OPTIONS};
pub use stats::{CounterRow, Stats, Unit, READINGS, TABLE as COUNTERS};
pub use status::{Error, Remedy, Result, Status, StatusRow, TABLE as STATUSES};

/// The version of this library, such as "0.1.0".
pub const fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
