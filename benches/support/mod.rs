//! What the benchmarks share. Each uses a part of it.
#![allow(dead_code)]

pub mod rows;
