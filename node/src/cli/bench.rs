//! `llamesh bench`: how fast a model is on this machine, and a digest that shows that it computes what all others do.
//!
//! One process, one model, one engine: the peak of memory is the process's own, with one context. `LLAMESH_KERNEL` forces
//! a path through the exact engine's kernels.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use crypto::Digest;
use inference::bench::{Measured, Served, measure};
use inference::{Engine, EngineChoice, LoadError, Loading, kernels, load_exactly, load_with};
use serde::Serialize;

use super::{Common, print};
use crate::config::DEFAULT_MODEL;
use crate::failure::{Class, Failure};
use crate::models::{Bar, Form, Models};

/// Measure a model on this machine.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The model: a name, a GGUF file, or one of the Hugging Face hub (owner/repository/file.gguf)
    #[arg(long, env = "LLAMESH_MODEL", value_name = "NAME|FILE", default_value = DEFAULT_MODEL)]
    model: String,
    /// Threads of the exact engine [default: one for each core]
    #[arg(long, env = "LLAMESH_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The engine [default: exact where it covers the model]
    #[arg(long)]
    engine: Option<Choice>,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// The same bits everywhere
    Exact,
    /// Candle's own models
    Candle,
}

/// A model ready to be measured.
struct Loaded {
    engine: Arc<dyn Engine>,
    kernel: String,
    threads: usize,
}

/// What is printed; with `--json` in these words.
#[derive(Serialize)]
struct Report {
    profile: String,
    kernel: String,
    threads: usize,
    decode: f64,
    prefill128: f64,
    prefill512: f64,
    batch8: f64,
    batch16: f64,
    serve: Served,
    verify_share: f64,
    /// The most memory that the process held with one context, as a multiple of the model file; `None` where the system does
    /// not say.
    peak_over_file: Option<f64>,
    digest: Digest,
}

impl Bench {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let models = Models::from_env().map_err(Failure::of(Class::Model))?;
        let file = models.obtain(&self.model, &Bar::new()).await.map_err(Failure::of(Class::Model))?;
        if file.form == Form::Folder {
            let what = format!("`{}` makes vectors and no text: take a model that generates", self.model);
            return Err(Failure::new(Class::Model, what));
        }
        let report = tokio::task::spawn_blocking(move || self.measured(&file.path));
        let report = report.await.map_err(Failure::of(Class::Internal))??;
        if common.json { print::json(&report) } else { report.show() }
    }

    fn measured(&self, path: &Path) -> Result<Report, Failure> {
        let loaded = self.load(path).map_err(|error| Failure::of_load(path, &error))?;
        if self.threads.is_some() && !loaded.engine.is_exact() {
            let what = "candle's models take no --threads: leave it out, or set RAYON_NUM_THREADS";
            return Err(Failure::new(Class::Usage, what));
        }
        let measured = measure(&loaded.engine).map_err(Failure::of(Class::Model))?;
        Ok(Report::of(&loaded, &measured))
    }

    fn load(&self, path: &Path) -> Result<Loaded, LoadError> {
        match self.engine {
            Some(Choice::Exact) => self.exact(path),
            Some(Choice::Candle) => candle(path),
            None => match self.exact(path) {
                Err(LoadError::NotExact { .. }) => candle(path),
                loaded => loaded,
            },
        }
    }

    fn exact(&self, path: &Path) -> Result<Loaded, LoadError> {
        let loading = Loading { threads: self.threads.map(NonZeroUsize::get), ..Loading::default() };
        let model = load_exactly(path, loading)?;
        let (kernel, threads) = (model.kernel().to_string(), model.threads());
        Ok(Loaded { engine: Arc::new(model), kernel, threads })
    }
}

fn candle(path: &Path) -> Result<Loaded, LoadError> {
    let engine = load_with(path, Loading { engine: EngineChoice::Candle, ..Loading::default() })?;
    // A profile of candle names the arithmetic between its version and its chunk.
    let kernel = engine.profile().split('/').nth(1).unwrap_or_default().to_owned();
    Ok(Loaded { engine, kernel, threads: kernels::threads() })
}

impl Report {
    fn of(loaded: &Loaded, measured: &Measured) -> Self {
        let Loaded { engine, kernel, threads } = loaded;
        let of_file = |bytes: u64| bytes as f64 / engine.card().file_size.max(1) as f64;
        Self {
            profile: engine.profile().to_owned(),
            kernel: kernel.clone(),
            threads: *threads,
            decode: measured.decode,
            prefill128: measured.prefill128,
            prefill512: measured.prefill512,
            batch8: measured.batch8,
            batch16: measured.batch16,
            serve: measured.serve.clone(),
            verify_share: measured.verify_share,
            peak_over_file: measured.peak_memory.map(of_file),
            digest: measured.digest,
        }
    }

    fn served(&self) -> String {
        let Served {
            clients, throughput, speedup, gap_p95_ms, gap_p95_over_alone, first_token_p50_ms, ..
        } = self.serve;
        format!(
            "{clients} clients: {throughput:.1} tokens/s, {speedup:.1} times one at a time; a token at least every \
             {gap_p95_ms:.1} ms (p95, {gap_p95_over_alone:.1} times alone), the first after {first_token_p50_ms:.0} ms"
        )
    }

    fn show(&self) -> Result<(), Failure> {
        let rate = |rate: f64| format!("{rate:.1} tokens/s");
        let memory = self.peak_over_file.map_or_else(|| "unknown".to_owned(), |peak| format!("{peak:.2}"));
        let rows = [
            ("profile", self.profile.clone()),
            ("kernel", format!("{}, {} threads", self.kernel, self.threads)),
            ("decode", rate(self.decode)),
            ("prefill 128", rate(self.prefill128)),
            ("prefill 512", rate(self.prefill512)),
            ("batch 8", rate(self.batch8)),
            ("batch 16", rate(self.batch16)),
            ("serve", self.served()),
            ("verify / make", format!("{:.3}", self.verify_share)),
            ("peak / file", memory),
            ("digest", self.digest.to_string()),
        ];
        rows.iter().try_for_each(|(what, value)| print::line(&format!("{what:<13}  {value}")))
    }
}
