#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| embosser_fuzz::run("config_file", data));
