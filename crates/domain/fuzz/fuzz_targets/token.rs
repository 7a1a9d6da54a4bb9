//! Bytes of any kind through the token's codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    domain::fuzz::token(bytes);
});
