//! What servers and their clients meet: sessions that resume, the C programs of tests/c, and valgrind's word on both.

mod c_programs;
mod resumption;
mod valgrind;
