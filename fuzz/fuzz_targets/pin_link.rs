#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| embosser_fuzz::run("pin_link", data));
