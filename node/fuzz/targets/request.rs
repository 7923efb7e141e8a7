//! Bodies of the local API: jobs as the command line writes them, and requests of OpenAI's clients.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::api::openai;
use node::request::JobRequest;
use protocol::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<JobRequest>(bytes) {
        let _ = request.spec(Timestamp(1), None);
    }
    let _ = openai::reads(bytes);
});
