//! See `com_broker_fuzz::websocket_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| com_broker_fuzz::websocket_bytes(data));
