//! See `com_broker_fuzz::classic_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| com_broker_fuzz::classic_frame(data));
