//! See `com_broker_fuzz::config_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| com_broker_fuzz::config_file(data));
