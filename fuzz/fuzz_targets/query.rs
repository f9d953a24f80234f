#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isochrone_fuzz::query(data));
