//! Bytes of any kind through the frame scanner and the cursor.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    journal::fuzz::frame(bytes);
});
