//! A replay from files: the model is read, and the receipt judged with it. Not for an async thread.

use std::path::Path;
use std::sync::Arc;

use inference::{Embedder, Engine, LoadError};

use super::{Verdict, embedding, replay};
use crate::agents::model;
use crate::failure::Failure;
use crate::models::Progress;
use crate::receipts::ReceiptFile;

/// Judges a receipt with the model at `path`, a file or a folder; `progress` hears of positions.
///
/// # Errors
/// When the model cannot be read.
pub fn with_model(file: &ReceiptFile, path: &Path, progress: &dyn Progress) -> Result<Verdict, Failure> {
    let bad = |error: LoadError| Failure::of_load(path, &error);
    if path.is_dir() {
        let embedder = Embedder::load(path).map_err(bad)?;
        return Ok(embedding::replay(file, &embedder));
    }
    let engine: Arc<dyn Engine> = model::load(path, None).map_err(bad)?;
    let mut last = None;
    let verdict = replay(file, &engine, |done, of| {
        if last.is_none() {
            progress.begin("replaying", Some(u64::from(of)));
        }
        progress.advance(u64::from(done - last.unwrap_or(0)));
        last = Some(done);
    });
    progress.done();
    Ok(verdict)
}
