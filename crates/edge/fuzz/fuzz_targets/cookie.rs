//! Bytes of any kind through the cookie's reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edge::fuzz::cookie(bytes);
});
