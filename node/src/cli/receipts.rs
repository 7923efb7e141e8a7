//! `llamesh receipts`: what was done for this peer, from the files in its folder; and export for others' eyes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Common, print};
use crate::failure::{Class, Failure};
use crate::receipts::{self, ReceiptFile};

/// List receipts, or export one.
#[derive(Debug, Args)]
pub(super) struct Receipts {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a receipt file
    Export {
        /// The receipt: a file, or its digest (or the beginning of it)
        receipt: String,
        /// Leave out the prompt and the answer
        #[arg(long)]
        public: bool,
    },
}

impl Receipts {
    pub(super) fn run(self, common: &Common) -> Result<(), Failure> {
        match self.action {
            None => list(common),
            Some(Action::Export { receipt, public }) => export(common, &receipt, public),
        }
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    let folder = common.data_dir()?.receipts();
    let files = receipts::list(&folder).map_err(Failure::of(Class::Data))?;
    if files.is_empty() && !common.json {
        print::say("no receipts yet: `llamesh submit` brings one");
    }
    for (path, file) in files {
        match file {
            Ok(file) if common.json => print::json(&entry(&path, &file))?,
            Ok(file) => print::line(&row(&file))?,
            Err(error) => print::say(&format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

fn entry(path: &std::path::Path, file: &ReceiptFile) -> serde_json::Value {
    json!({ "receipt": file.digest(), "receipt_file": path, "provider": file.receipt.signer(), "view": file.receipt.value() })
}

fn row(file: &ReceiptFile) -> String {
    let receipt = file.receipt.value();
    let (digest, provider) = (file.digest(), file.receipt.signer());
    let tokens = receipt.answer_tokens();
    format!(
        "{digest}  {}  {:<24} {tokens:>5} tokens  {}",
        provider.short(),
        receipt.capability.as_str(),
        receipt.cost
    )
}

fn export(common: &Common, receipt: &str, public: bool) -> Result<(), Failure> {
    let file = ReceiptFile::read(&locate(common, receipt)?).map_err(Failure::of(Class::Refuted))?;
    let file = if public { file.public() } else { file };
    print::write(&file.render().map_err(Failure::of(Class::Internal))?)
}

/// The file that a path, a digest or the beginning of one means.
pub(super) fn locate(common: &Common, receipt: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(receipt);
    if path.is_file() {
        return Ok(path);
    }
    let none = || {
        let what = format!(
            "`{receipt}` is neither a file nor a receipt in the data directory: see `llamesh receipts`"
        );
        Failure::new(Class::Request, what)
    };
    if receipt.len() < 6 || !receipt.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(none());
    }
    let files = std::fs::read_dir(common.data_dir()?.receipts()).map_err(|_| none())?;
    let names =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(receipt));
    let mut found = files.filter_map(|file| Some(file.ok()?.path())).filter(names);
    match (found.next(), found.next()) {
        (Some(file), None) => Ok(file),
        (Some(_), Some(_)) => {
            Err(Failure::new(Class::Request, format!("several receipts begin with `{receipt}`")))
        }
        (None, _) => Err(none()),
    }
}
