//! Bytes of any kind as events.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    domain::fuzz::event(bytes);
});
