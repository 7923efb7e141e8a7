//! `llamesh verify`: was it right? Offline, from the file alone; with `--replay`, from the model, too.

use std::path::PathBuf;

use clap::Args;
use crypto::Digest;

use super::{Common, print, receipts};
use crate::failure::{Class, Failure};
use crate::models::{Bar, Models};
use crate::receipts::{ReceiptError, ReceiptFile};
use crate::verification::replaying::with_model;
use crate::verification::{self, Verdict, Word};

/// Check a receipt file.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The receipt: a file, or its digest (or the beginning of it)
    receipt: String,
    /// Recompute the answer with the model
    #[arg(long)]
    replay: bool,
    /// The model for --replay, when it is not in the cache
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
}

impl Verify {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let verdict = self.verdict(&common).await?;
        if common.json {
            print::json(&verdict)?;
        } else {
            let word = format!("{:?}", verdict.verdict).to_lowercase();
            let counts = if verdict.of > 0 {
                format!(" ({} of {})", verdict.agree, verdict.of)
            } else {
                String::new()
            };
            print::line(&format!("{word}{counts}: {}", verdict.why))?;
        }
        match verdict.failure() {
            None => Ok(()),
            Some(class) => Err(Failure::new(class, next_step(verdict.verdict))),
        }
    }

    async fn verdict(&self, common: &Common) -> Result<Verdict, Failure> {
        let path = receipts::locate(common, &self.receipt)?;
        let file = match ReceiptFile::read(&path) {
            Ok(file) => file,
            Err(error @ ReceiptError::Io { .. }) => return Err(Failure::new(Class::Request, error)),
            Err(error) => return Ok(Verdict::new(Word::Refuted, error.to_string())),
        };
        if !self.replay {
            return Ok(Verdict::signed(&file));
        }
        let wanted = match verification::replayable(&file) {
            Ok((_, _, digest)) => digest,
            Err(verdict) => return Ok(verdict),
        };
        match self.model_file(wanted).await? {
            Some(path) => replay(file, path).await,
            None => {
                let why = format!("the model {wanted} is not on this machine: pass it with --model FILE");
                Ok(Verdict::new(Word::Unverifiable, why))
            }
        }
    }

    async fn model_file(&self, wanted: Digest) -> Result<Option<PathBuf>, Failure> {
        let models = Models::from_env().map_err(Failure::of(Class::Model))?;
        match &self.model {
            Some(model) => {
                let file = models.obtain(model, &Bar::new()).await.map_err(Failure::of(Class::Model))?;
                Ok(Some(file.path))
            }
            None => Ok(models.by_digest(&wanted)),
        }
    }
}

async fn replay(file: ReceiptFile, path: PathBuf) -> Result<Verdict, Failure> {
    let replayed = tokio::task::spawn_blocking(move || with_model(&file, &path, &Bar::new()));
    replayed.await.map_err(Failure::of(Class::Internal))?
}

fn next_step(word: Word) -> &'static str {
    match word {
        Word::Refuted => "do not rely on this answer; keep the file, it is evidence against its signer",
        _ => "nothing is known against this answer, and nothing for it beyond the signatures",
    }
}
