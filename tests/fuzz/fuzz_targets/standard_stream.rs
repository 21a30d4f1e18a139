//! See `com_broker_fuzz::standard_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| com_broker_fuzz::standard_stream(data));
