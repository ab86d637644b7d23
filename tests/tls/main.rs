//! What servers and their clients meet: sessions that resume, the C programs of tests/c.

mod c_programs;
mod python;
mod quic;
mod resumption;
#[cfg(feature = "openssl")]
mod rust_api;
#[cfg(feature = "openssl")]
mod rust_programs;
