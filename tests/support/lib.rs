//! What the integration tests share. Every wait has a deadline, and everything that a test starts ends with it.
//!
//! - `tree`, `c`, `install`: the staged library, C programs compiled against it, `make install`.
//! - `machine`: how slow it is, and what the tests may do on it. `scratch`: directories that go away.
//! - `process`, `server`, `clients`, `program`, `demo`: the example servers and clients, and the program.
//! - `record`, `worker`, `clock`, `damage`: stores, and processes that use them.
//! - `mdoc`: manual pages.
#![allow(missing_docs)] // most names say it all

mod c;
/// The checker of data files, for tests that go beyond what a store lets through.
#[path = "../../src/store/check.rs"]
pub mod check;
mod clients;
mod clock;
pub mod damage;
pub mod demo;
pub mod install;
mod machine;
pub mod mdoc;
/// What the checker knows of LMDB's layout.
#[path = "../../src/store/mdb/pages.rs"]
pub mod pages;
mod process;
pub mod program;
mod record;
mod scratch;
mod server;
mod tree;
mod worker;

pub use c::{compile, compile_check, compile_program, has_quic_servers, preload, program_sources, Compile};
pub use clients::{measure, resume_client, Tally, Tls, Traffic, BOTH};
pub use clock::Clock;
pub use machine::{in_namespaces, is_root, not_tried, patience, set_mode, tries, wait_until};
pub use process::{collect, copy_program, run, signal, spawn_in_group, Finished};
pub use record::{hex, monotonic, now, open, row, unhex, Data, Random};
pub use scratch::Scratch;
pub use server::{certificate, Server};
pub use tree::{kept, lock, root, stage, staged, target, text, without_cargos_settings};
pub use worker::{become_worker, put_line, serve, Refused, Work, Worker};
