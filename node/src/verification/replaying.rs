//! A replay from files: the model is read, and the receipt judged with it. Not for an async thread.

use std::path::Path;
use std::sync::Arc;

use inference::{Embedder, Engine, LoadError};
use protocol::JobKind;

use super::{Verdict, embedding, replay};
use crate::agents::embedder::Source;
use crate::agents::model;
use crate::failure::Failure;
use crate::models::Progress;
use crate::receipts::ReceiptFile;

/// Judges a receipt with the model at `path`, a file or a folder; `progress` hears of positions done and to do.
///
/// # Errors
/// When the model cannot be read.
pub fn replay_with(
    file: &ReceiptFile,
    path: &Path,
    progress: impl FnMut(u32, u32),
) -> Result<Verdict, LoadError> {
    if path.is_dir() {
        return Ok(embedding::replay(file, Source::Encoder(&Embedder::load(path)?)));
    }
    let engine: Arc<dyn Engine> = model::load(path, None)?;
    if file.receipt.value().kind == JobKind::Embed {
        return Ok(embedding::replay(file, Source::Language(engine.as_ref())));
    }
    Ok(replay(file, &engine, progress))
}

/// The same with a bar, or whatever else shows progress.
///
/// # Errors
/// When the model cannot be read.
pub fn with_model(file: &ReceiptFile, path: &Path, progress: &dyn Progress) -> Result<Verdict, Failure> {
    let mut last = None;
    let verdict = replay_with(file, path, |done, of| {
        if last.is_none() {
            progress.begin("replaying", Some(u64::from(of)));
        }
        progress.advance(u64::from(done - last.unwrap_or(0)));
        last = Some(done);
    });
    progress.done();
    verdict.map_err(|error: LoadError| Failure::of_load(path, &error))
}
