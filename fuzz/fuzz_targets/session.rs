#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sesscache::fuzzing::run("session", data));
