//! A whole load: it ends in a model or an error, whatever the file says.
#![no_main]

use std::fs;

use inference::Loading;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // libFuzzer's hook ends the process at a panic; those that loading catches are answers like others. One that
    // escapes ends the process all the same.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), bytes).expect("room for it");
        let loading = Loading { threads: Some(1), ..Loading::default() };
        let _ = inference::load_with(file.path(), loading);
    }
);
