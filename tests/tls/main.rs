//! What servers and their clients meet: sessions that resume, the C programs of tests/c.

mod c_programs;
mod resumption;
