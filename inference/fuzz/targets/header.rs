//! The look at a file that nobody trusts yet: it ends in an answer, and allocates no more than it has read.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = inference::gguf::check(&mut Cursor::new(bytes), bytes.len() as u64);
});
