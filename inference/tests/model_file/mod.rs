//! Where tests find the default model: in `LLAMESH_TEST_MODEL`, or in the cache where `llamesh` keeps it.
#![expect(clippy::print_stderr, reason = "a test that tested nothing says so")]

use std::path::PathBuf;

/// The file; without it a test says on stderr that nothing was tested.
pub(crate) fn find() -> Option<PathBuf> {
    let named = std::env::var_os("LLAMESH_TEST_MODEL").map(PathBuf::from);
    let cache = std::env::var_os("LLAMESH_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/llamesh"));
    let cached = cache.or(home).map(|cache| cache.join("models/smollm2.gguf"));
    let found = named.or(cached).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no model file; set LLAMESH_TEST_MODEL to a SmolLM2-135M-Instruct GGUF to run this test"
        );
    }
    found
}
