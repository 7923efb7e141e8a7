//! `llamesh models`: which models there are, how they get here, and how they get out again.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Common;
use super::print::{self, Style, styled};
use crate::failure::{Class, Failure};
use crate::models::inventory::Entry;
use crate::models::{Bar, ModelFile, Models as Cache};

/// List, fetch or delete models.
#[derive(Debug, Args)]
pub(super) struct Models {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what is known by name, and what is in the cache (the default)
    List,
    /// Fetch a model into the cache; what is there is checked
    Pull {
        /// A known name, or owner/repository[@revision]/file.gguf of the Hugging Face hub
        model: String,
    },
    /// Delete a model from the cache
    Rm {
        /// The model, as `list` names it
        model: String,
    },
}

impl Models {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let cache = Cache::from_env().map_err(Failure::of(Class::Model))?;
        match self.action {
            None | Some(Action::List) => list(&cache, common.json),
            Some(Action::Pull { model }) => pull(&cache, &model, common.json).await,
            Some(Action::Rm { model }) => remove(&cache, &model, common.json),
        }
    }
}

fn list(cache: &Cache, as_json: bool) -> Result<(), Failure> {
    for entry in cache.list() {
        if as_json { print::json(&entry)? } else { print::line(&row(&entry))? }
    }
    Ok(())
}

async fn pull(cache: &Cache, model: &str, as_json: bool) -> Result<(), Failure> {
    let file = cache.obtain(model, &Bar::new()).await.map_err(Failure::of(Class::Model))?;
    let ModelFile { path, form, digest, .. } = file;
    if as_json {
        return print::json(&json!({ "name": model, "form": form, "digest": digest, "path": path }));
    }
    print::line(&format!("{digest}  {}", path.display()))
}

fn remove(cache: &Cache, model: &str, as_json: bool) -> Result<(), Failure> {
    let freed = cache.remove(model).map_err(Failure::of(Class::Model))?;
    if as_json {
        return print::json(&json!({ "name": model, "freed": freed }));
    }
    print::line(&format!("deleted {model}, {}", megabytes(freed)))
}

fn row(entry: &Entry) -> String {
    let (there, style) = if entry.present { ("here", Style::Good) } else { ("-", Style::Dim) };
    let digest = entry.digest.map_or_else(|| "-".to_owned(), |digest| digest.short());
    let from = entry.from.join(", ");
    format!(
        "{:<12} {:>10}  {digest:<8}  {}  {}",
        print::plain(&entry.name),
        megabytes(entry.size),
        styled(style, &format!("{there:<4}")),
        print::plain(&from)
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
