//! A receipt's file from anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::receipts::ReceiptFile;

fuzz_target!(|text: &str| {
    let _ = ReceiptFile::parse(text);
});
