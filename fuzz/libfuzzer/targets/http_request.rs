#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dstore_fuzz::run("http_request", bytes));
