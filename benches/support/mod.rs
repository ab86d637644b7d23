//! What the benchmarks share. Each uses a part of it.
#![allow(dead_code)]

pub mod chart;
pub mod measure;
pub mod processes;
pub mod rows;
