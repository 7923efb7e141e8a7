//! A first look at a model file, before anything believes it.
//!
//! A GGUF file is a list of lengths that a stranger wrote, and a loader that allocates what they say can be killed
//! by sixty bytes. This walk over the header holds every count, length and extent against a cap and against the
//! bytes that are really there, allocates nothing that the file decides, and says what is wrong in words.
//! Only a file that passes is given to candle.

use std::io::{self, BufRead, Read, Seek};

/// A file that is not loaded, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The weights do not fit each other, or candle gave up on them.
    #[error("the model file is inconsistent: {what}; fetch it again, and if that does not help take another")]
    Broken {
        /// What does not fit.
        what: String,
    },
    /// A number in the header that no honest file has.
    #[error("the file's header is not credible: {what}; do not use this file")]
    Hostile {
        /// Which number.
        what: String,
    },
    /// The exact engine has no code for something in the file, and it was asked for or no other knows the family.
    #[error(
        "the exact engine has no code for something in this file ({what}), and no other engine was left to take it; take another quantisation, such as Q4_K_M or Q8_0, or another model"
    )]
    NotExact {
        /// What it lacks.
        what: String,
    },
    /// A path through the kernels that cannot be taken.
    #[error(transparent)]
    Kernel(#[from] crate::exact::KernelError),
    /// The file could not be read.
    #[error("the model file cannot be read ({0}); check the path and its permissions")]
    Io(#[source] io::Error),
    /// The file does not begin like a GGUF file.
    #[error("this is not a GGUF file; give a model whose name ends in .gguf")]
    NotGguf,
    /// The file ends too early.
    #[error("the file ends in the middle of {what}; the download was cut short, fetch it again")]
    Truncated {
        /// What is incomplete.
        what: String,
    },
    /// A family of models without an engine.
    #[error("models of architecture `{name}` are not supported; take one of: {supported}")]
    UnsupportedArchitecture {
        /// The family.
        name: String,
        /// Those that are supported.
        supported: String,
    },
    /// A tokenizer without code, or tables that contradict each other.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokens::TokenizerError),
    /// Weights in a format without kernels.
    #[error(
        "tensor `{tensor}` has weights of type {kind}, which has no kernel; take another quantisation such as Q4_0 or Q8_0"
    )]
    UnsupportedWeights {
        /// The tensor.
        tensor: String,
        /// Its type.
        kind: String,
    },
    /// A version of the format that is not 2 or 3.
    #[error("GGUF version {version} is not supported; convert the file to version 3")]
    UnsupportedVersion {
        /// The version.
        version: u32,
    },
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Truncated { what: "its header".to_owned() };
        }
        Self::Io(error)
    }
}

/// Checks the header of a file that begins at the reader's position and is `size` bytes long.
pub fn check(reader: &mut (impl BufRead + Seek), size: u64) -> Result<(), LoadError> {
    let mut header = Header { reader, size, elements: 0 };
    let (tensors, entries) = header.counts()?;
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..entries {
        if let Some(stated) = header.entry()? {
            alignment = stated;
        }
    }
    let mut extents = Vec::new();
    for _ in 0..tensors {
        extents.push(header.tensor(alignment)?);
    }
    let data = header.position()?.next_multiple_of(alignment);
    check_extents(extents, size.saturating_sub(data))
}

/// Tensors must lie in the data one after the other: two that share bytes would let a small file fill memory.
fn check_extents(mut extents: Vec<Extent>, available: u64) -> Result<(), LoadError> {
    extents.sort_unstable_by_key(|extent| extent.start);
    let mut free = 0;
    for extent in extents {
        if extent.start < free {
            return hostile(format!("tensor `{}` shares bytes with another", extent.name));
        }
        free = extent.start.saturating_add(extent.length);
        if free > available {
            return Err(LoadError::Truncated { what: format!("tensor `{}`", extent.name) });
        }
    }
    Ok(())
}

struct Extent {
    name: String,
    start: u64,
    length: u64,
}

struct Header<'a, R> {
    reader: &'a mut R,
    size: u64,
    /// Array elements seen so far, in all entries.
    elements: u64,
}

impl<R: BufRead + Seek> Header<'_, R> {
    fn counts(&mut self) -> Result<(u64, u64), LoadError> {
        let mut magic = [0; 4];
        self.reader.read_exact(&mut magic).map_err(|_| LoadError::NotGguf)?;
        if &magic != b"GGUF" {
            return Err(LoadError::NotGguf);
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(LoadError::UnsupportedVersion { version });
        }
        let tensors = capped("the number of tensors", self.u64()?, MAX_TENSORS)?;
        let entries = capped("the number of metadata entries", self.u64()?, MAX_ENTRIES)?;
        Ok((tensors, entries))
    }

    /// Reads over one metadata entry; the alignment if that is what it states.
    fn entry(&mut self) -> Result<Option<u64>, LoadError> {
        let key = self.string("the length of a metadata key", MAX_NAME)?;
        let kind = self.u32()?;
        if key == "general.alignment" {
            return self.alignment(kind).map(Some);
        }
        self.value(kind)?;
        Ok(None)
    }

    fn alignment(&mut self, kind: u32) -> Result<u64, LoadError> {
        if kind != U32 {
            return hostile("the alignment is not a 32-bit number".to_owned());
        }
        let alignment = u64::from(self.u32()?);
        if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
            return hostile(format!("the alignment is {alignment}"));
        }
        Ok(alignment)
    }

    fn value(&mut self, kind: u32) -> Result<(), LoadError> {
        match kind {
            STRING => self.skip_string(),
            ARRAY => self.array(),
            _ => {
                let width = width(kind)?;
                self.skip(width)
            }
        }
    }

    fn array(&mut self) -> Result<(), LoadError> {
        let kind = self.u32()?;
        let length = self.u64()?;
        self.elements =
            capped("the number of array elements", self.elements.saturating_add(length), MAX_ELEMENTS)?;
        match kind {
            ARRAY => hostile("an array of arrays".to_owned()),
            STRING => (0..length).try_for_each(|_| self.skip_string()),
            _ => {
                let width = width(kind)?;
                self.skip(width * length)
            }
        }
    }

    fn tensor(&mut self, alignment: u64) -> Result<Extent, LoadError> {
        let name = self.string("the length of a tensor's name", MAX_NAME)?;
        let rank = self.u32()?;
        if !(1..=MAX_RANK).contains(&rank) {
            return hostile(format!("tensor `{name}` has {rank} dimensions"));
        }
        let mut row = 1;
        let mut elements = 1_u64;
        for dimension in 0..rank {
            let extent = self.u64()?;
            if dimension == 0 {
                row = extent;
            }
            elements = elements.saturating_mul(extent);
        }
        if elements == 0 || elements > MAX_WEIGHTS {
            return hostile(format!("tensor `{name}` has {elements} elements"));
        }
        let kind = self.u32()?;
        let start = self.u64()?;
        let Some((block, bytes)) = block(kind) else {
            return Err(LoadError::UnsupportedWeights { tensor: name, kind: kind.to_string() });
        };
        if !row.is_multiple_of(block) || !start.is_multiple_of(alignment) {
            return hostile(format!("tensor `{name}` is not aligned to its blocks"));
        }
        Ok(Extent { name, start, length: elements / block * bytes })
    }

    fn string(&mut self, what: &str, cap: u64) -> Result<String, LoadError> {
        let length = capped(what, self.u64()?, cap)?;
        let mut bytes = Vec::new();
        self.reader.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(LoadError::Truncated { what: "its header".to_owned() });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip_string(&mut self) -> Result<(), LoadError> {
        let length = capped("the length of a text", self.u64()?, MAX_STRING)?;
        self.skip(length)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), LoadError> {
        if bytes > self.size.saturating_sub(self.position()?) {
            return Err(LoadError::Truncated { what: "its header".to_owned() });
        }
        // The caps keep every skip far below what a signed offset holds.
        Ok(self.reader.seek_relative(bytes as i64)?)
    }

    fn position(&mut self) -> Result<u64, LoadError> {
        Ok(self.reader.stream_position()?)
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        let mut bytes = [0; 4];
        self.reader.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn capped(what: &str, value: u64, cap: u64) -> Result<u64, LoadError> {
    if value > cap { hostile(format!("{what} is {value}, more than {cap}")) } else { Ok(value) }
}

fn hostile<T>(what: String) -> Result<T, LoadError> {
    Err(LoadError::Hostile { what })
}

/// Bytes of a plain value.
fn width(kind: u32) -> Result<u64, LoadError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => hostile(format!("a metadata value is of type {kind}")),
    }
}

/// Weights in a block and bytes of a block, for the types that have kernels.
const fn block(kind: u32) -> Option<(u64, u64)> {
    match kind {
        0 => Some((1, 4)),
        1 | 30 => Some((1, 2)),
        2 => Some((32, 18)),
        3 => Some((32, 20)),
        6 => Some((32, 22)),
        7 => Some((32, 24)),
        8 => Some((32, 34)),
        10 => Some((256, 84)),
        11 => Some((256, 110)),
        12 => Some((256, 144)),
        13 => Some((256, 176)),
        14 => Some((256, 210)),
        _ => None,
    }
}

const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const DEFAULT_ALIGNMENT: u64 = 32;
/// A page of the largest kind in common use is no reason to align wider.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// The largest models have some two thousand.
const MAX_TENSORS: u64 = 1 << 16;
/// Files have some forty.
const MAX_ENTRIES: u64 = 1 << 12;
/// The format's own limit for keys.
const MAX_NAME: u64 = (1 << 16) - 1;
/// The longest texts are chat templates, some 15 KiB.
const MAX_STRING: u64 = 1 << 20;
/// The largest vocabularies have 262 144 tokens, and names, scores, kinds and merges for each. candle holds an
/// element in 32 bytes.
const MAX_ELEMENTS: u64 = 1 << 22;
/// What the format allows.
const MAX_RANK: u32 = 4;
/// A trillion weights; beyond it sizes could overflow.
const MAX_WEIGHTS: u64 = 1 << 40;

#[cfg(test)]
mod tests;
