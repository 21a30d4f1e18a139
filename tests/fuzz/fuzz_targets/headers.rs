//! See `com_broker_fuzz::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| com_broker_fuzz::headers(data));
