//! A model that can be loaded: what is known of it before, how much memory it is believed to take, and the loading.

use std::sync::Arc;

use crypto::Digest;
use inference::{Embedder, LoadError, Outline, Serving, Worker};
use protocol::{ModelOffer, Speed};

use super::speeds::Speeds;
use super::{QUEUE, Resources};
use crate::agents::{embedder, model};
use crate::models::{Form, ModelFile};

/// What a language model takes in memory at most, in hundredths of its file, with the buffers of its passes: the largest of
/// what `llamesh bench` tells as `peak_over_file` (1.36 to 1.53, of models of 100 MB to 1 GB; larger ones take less).
const GGUF_PERCENT: u64 = 153;
/// The same for an embedder: its weights are there twice while they are loaded, as they stand in the file and as numbers.
const FOLDER_PERCENT: u64 = 210;
/// What the caches of a model's jobs may take at least, in bytes, where the limit allows it: some conversations of a few
/// thousand tokens with a small model.
const CACHES: u64 = 256 << 20;

/// A model of this peer, in memory or not.
#[derive(Debug)]
pub struct Volume {
    file: ModelFile,
    outline: Outline,
    resources: Resources,
    speeds: Arc<Speeds>,
}

/// A model in memory.
#[derive(Clone, Debug)]
pub enum Resident {
    /// It makes vectors.
    Embedder(Arc<Embedder>),
    /// It generates; the worker is shared by all agents with this model.
    Language(Worker),
}

impl Volume {
    /// Looks at a model without loading it. Reads headers: not for an async thread.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn open(
        file: ModelFile,
        resources: Resources,
        speeds: Arc<Speeds>,
    ) -> Result<Self, LoadError> {
        let outline = match file.form {
            Form::Folder => Embedder::outline(&file.path),
            Form::Gguf => Outline::of_gguf(&file.path),
        }?;
        Ok(Self { file, outline, resources, speeds })
    }

    /// What it is called on the wire.
    pub fn digest(&self) -> Digest {
        self.file.digest
    }

    /// What it is made of.
    pub fn form(&self) -> Form {
        self.file.form
    }

    /// Its file or folder.
    pub fn path(&self) -> &std::path::Path {
        &self.file.path
    }

    /// For people.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// What was measured when it was first loaded, here or at an earlier start; nothing before.
    pub fn speed(&self) -> Speed {
        self.known_speed().unwrap_or_default()
    }

    fn known_speed(&self) -> Option<Speed> {
        self.speeds.of(&self.file.digest, &self.outline.profile, self.resources.threads())
    }

    /// What an agent with this model offers.
    pub fn offer(&self) -> ModelOffer {
        ModelOffer {
            name: self.file.name.clone(),
            digest: self.file.digest,
            manifest: self.file.form == Form::Folder,
            engine: self.outline.profile.clone(),
            context: u32::try_from(self.outline.context).unwrap_or(u32::MAX),
        }
    }

    /// Bytes that its weights are believed to take, with what a pass needs.
    pub fn weights(&self) -> u64 {
        let percent = match self.file.form {
            Form::Folder => FOLDER_PERCENT,
            Form::Gguf => GGUF_PERCENT,
        };
        (self.outline.size / 100).saturating_add(1).saturating_mul(percent)
    }

    /// Bytes that the caches of its jobs may take: as many as its weights, and some conversations at least, as far as the
    /// limit allows. An embedder has none.
    pub fn caches(&self) -> u64 {
        let weights = self.weights();
        let left = self.resources.memory.bytes().saturating_sub(weights);
        if self.file.form == Form::Folder { 0 } else { weights.max(CACHES).min(left) }
    }

    /// Bytes that it takes of the limit.
    pub fn memory(&self) -> u64 {
        self.weights().saturating_add(self.caches())
    }

    /// Loads it, and measures it where its speed is not known. Takes seconds: not for an async thread.
    pub(super) fn load(&self) -> Result<Resident, LoadError> {
        match self.file.form {
            Form::Folder => {
                let embedder = Embedder::load(&self.file.path)?;
                self.unchanged(&embedder.card().digest, embedder.profile())?;
                self.measured(|| embedder::measure(&embedder));
                Ok(Resident::Embedder(Arc::new(embedder)))
            }
            Form::Gguf => {
                let engine = model::load(&self.file.path, self.resources.threads)?;
                self.unchanged(&engine.card().digest, engine.profile())?;
                self.measured(|| model::measure(engine.as_ref()));
                let worker = Worker::start(engine, self.serving()).map_err(LoadError::Io)?;
                Ok(Resident::Language(worker))
            }
        }
    }

    fn serving(&self) -> Serving {
        Serving { slots: self.resources.slots, queue: QUEUE, memory: self.caches(), ..Serving::default() }
    }

    /// Years may lie between the offer and the load.
    fn unchanged(&self, digest: &Digest, profile: &str) -> Result<(), LoadError> {
        if *digest == self.file.digest && profile == self.outline.profile {
            return Ok(());
        }
        let what = "it is not what it was when the peer started, so no job may have it".to_owned();
        Err(LoadError::Broken { what })
    }

    fn measured(&self, measure: impl FnOnce() -> Speed) {
        if self.known_speed().is_none() {
            let (profile, threads) = (&self.outline.profile, self.resources.threads());
            self.speeds.keep(self.file.digest, profile, threads, measure());
        }
    }
}
