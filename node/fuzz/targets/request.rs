//! Bodies of the local API: jobs as the command line writes them, and requests of OpenAI's clients. The first line is the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::api::openai;
use node::request::JobRequest;
use protocol::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (path, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let path = String::from_utf8_lossy(path);
    if path == "/control/jobs"
        && let Ok(request) = serde_json::from_slice::<JobRequest>(body)
    {
        let _ = request.spec(Timestamp(1), None);
    }
    let _ = openai::reads(&path, body);
});
