//! A TLS session cache shared by all processes of a server, on OpenSSL's external cache hooks and LMDB.
//!
//! OpenSSL's own cache lives in one process: a server that forks, restarts or has neighbours loses resumption. This
//! library fills the hooks once: [`Cache::open`] and [`Cache::attach`], and TLS 1.2 and TLS 1.3 sessions made in one
//! process resume in every other that opened the same directory. C programs use the same through `include/sesscache.h`.
//!
//! Promises: any trouble here costs a full handshake, never a failed one; a session never resumes under another server
//! name, namespace or session id context; early data is accepted once over all processes; the size is bounded and an
//! insert never fails for it; secrets are sealed, private and wiped; lookups take no lock.
//!
//! - `options`, `status`, `stats`: one table each; they make the documents too.
//! - `cache`: the API in safe Rust. `capi`: the same for C, a thin leaf.
//! - `inspect`: a store seen from outside, for the program.
//! - `tls`: what is set on an SSL_CTX, and the callbacks.
//! - `store`: records under ids in LMDB; knows nothing of TLS.
//! - `log`, `sys`: messages; libc and libcrypto behind safe faces.
#![warn(missing_docs)]

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

pub use cache::{detach, forget, Cache};
pub use log::Sink;
pub use options::{Options, Remove, Row as OptionRow, SingleUse, Sni, TABLE as OPTIONS};
pub use stats::{Row as CounterRow, Stats, Unit, READINGS, TABLE as COUNTERS};
pub use status::{Error, Result, Status, TABLE as STATUSES};
