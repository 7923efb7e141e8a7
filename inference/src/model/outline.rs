//! What a model's files say of it before anything is loaded: for those who have more models than memory.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::quantized::gguf_file::Content;

use super::{beyond_both, broken, panic_message};
use crate::candle_engine;
use crate::exact::{self, Unfit};
use crate::gguf::{self, LoadError};

/// What is known of a model without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The longest sequence, in tokens: the lesser of what the files and the engine allow.
    pub context: usize,
    /// The id of the numerics of the engine that would be chosen for it, on this machine.
    pub profile: String,
    /// Bytes of the files that hold its weights.
    pub size: u64,
}

impl Outline {
    /// Of a GGUF file, by its header. A file with an outline can still turn out to be damaged when it is loaded.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn of_gguf(path: &Path) -> Result<Self, LoadError> {
        let mut file = BufReader::new(File::open(path).map_err(LoadError::Io)?);
        let size = file.get_ref().metadata().map_err(LoadError::Io)?.len();
        gguf::check(&mut file, size)?;
        file.rewind().map_err(LoadError::Io)?;
        // Foreign code meets the header's numbers here.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let content = Content::read(&mut file).map_err(broken)?;
            Self::of_content(&content, size)
        }));
        read.unwrap_or_else(|panic| Err(LoadError::Broken { what: panic_message(&*panic) }))
    }

    fn of_content(content: &Content, size: u64) -> Result<Self, LoadError> {
        Ok(match exact::fits(content)? {
            Ok(dimensions) => Self { context: dimensions.context, profile: exact::PROFILE.to_owned(), size },
            Err(Unfit(what)) => {
                let context = candle_engine::context(content).map_err(|error| beyond_both(error, &what))?;
                Self { context, profile: candle_engine::profile_here(), size }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny::{TinyArchitecture, write_tiny_as};
    use crate::{Embedder, embedding, load};

    #[test]
    fn the_outline_of_a_file_is_what_its_engine_says_when_it_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for family in [TinyArchitecture::Llama, TinyArchitecture::Gemma3] {
            let path = folder.path().join("tiny.gguf");
            write_tiny_as(&path, 7, family).unwrap();
            let (outline, engine) = (Outline::of_gguf(&path).unwrap(), load(&path).unwrap());
            let card = engine.card();
            let loaded = (card.context, engine.profile(), card.file_size);
            assert_eq!((outline.context, outline.profile.as_str(), outline.size), loaded);
        }
        let folder = folder.path().join("embedder");
        embedding::tiny::write_tiny(&folder, 7).unwrap();
        let (outline, embedder) = (Embedder::outline(&folder).unwrap(), Embedder::load(&folder).unwrap());
        assert_eq!(
            (outline.context, outline.profile.as_str()),
            (embedder.card().context, embedder.profile())
        );
    }

    #[test]
    fn a_file_that_is_cut_or_none_has_no_outline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny_as(&path, 7, TinyArchitecture::Llama).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for left in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..left]).unwrap();
            assert!(Outline::of_gguf(&path).is_err(), "{left} bytes");
        }
        assert!(Outline::of_gguf(&folder.path().join("none.gguf")).is_err());
    }
}
