//! A file's tensors become packed weights.
//!
//! Packed weights of all layers lie in one piece of memory that asks for large pages: reading weights is what a
//! token's time goes to, and small pages cost a tenth of it. The file is read tile by tile by all threads and is not
//! mapped: weights have to be reordered anyway, so a mapping would only keep a second copy in view, and whoever
//! shortened the file later would take the process down.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use memmap2::{Mmap, MmapMut};

use super::lanes::LANES;
use super::linear::{Kind, Linear, pack_tile, packed_size};
use super::pool::Pool;
use crate::gguf::LoadError;

/// A tensor that a model needs, by its shape.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Channels of the heads whose rows are sorted from neighbouring pairs into halves; zero for none.
    pub(super) pairs: usize,
}

/// The tensors of a file.
pub(super) struct Tensors<'a> {
    content: &'a Content,
    file: &'a File,
}

impl<'a> Tensors<'a> {
    pub(super) const fn new(content: &'a Content, file: &'a File) -> Self {
        Self { content, file }
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// A vector of numbers of a given length.
    pub(super) fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let info = self.info(name, &[length])?;
        let bytes = self.read(info, 0..size(info))?;
        match info.ggml_dtype {
            GgmlDType::F32 => Ok(bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()),
            GgmlDType::F16 => {
                Ok(bytes.as_chunks().0.iter().map(|&two| half::f16::from_le_bytes(two).to_f32()).collect())
            }
            other => Err(unsupported(name, other)),
        }
    }

    /// Packs tensors, all of them into one piece of memory.
    pub(super) fn pack(
        &self,
        pool: &mut Pool,
        wanted: &[Wanted],
    ) -> Result<BTreeMap<String, Linear>, LoadError> {
        let mut plans = Vec::new();
        let mut end = 0;
        for wanted in wanted {
            let plan = self.plan(wanted, end)?;
            end = plan.place.end.next_multiple_of(ALIGNMENT);
            plans.push(plan);
        }
        let mut memory = MmapMut::map_anon(end.max(1)).map_err(LoadError::Io)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "no large pages for weights");
        }
        self.fill(pool, &plans, &mut memory)?;
        let memory = Arc::new(memory.make_read_only().map_err(LoadError::Io)?);
        Ok(plans.into_iter().map(|plan| (plan.wanted.name.clone(), plan.linear(&memory))).collect())
    }

    fn plan<'w>(&self, wanted: &'w Wanted, start: usize) -> Result<Plan<'w, 'a>, LoadError> {
        let info = self.info(&wanted.name, &[wanted.rows, wanted.columns])?;
        let kind = Kind::of(info.ggml_dtype).filter(|kind| wanted.columns.is_multiple_of(kind.granularity()));
        let kind = kind.ok_or_else(|| unsupported(&wanted.name, info.ggml_dtype))?;
        let place = start..start + packed_size(kind, wanted.rows, wanted.columns);
        Ok(Plan { wanted, info, kind, place })
    }

    /// Reads and packs all tiles, on all threads.
    fn fill(&self, pool: &mut Pool, plans: &[Plan<'_, '_>], memory: &mut [u8]) -> Result<(), LoadError> {
        let mut tasks = Vec::new();
        let mut rest = memory;
        let mut at = 0;
        for plan in plans {
            let (_, from) = rest.split_at_mut(plan.place.start - at);
            let (tiles, after) = from.split_at_mut(plan.place.len());
            (rest, at) = (after, plan.place.end);
            let tile = plan.place.len() / plan.wanted.rows.div_ceil(LANES);
            tasks.extend(
                tiles.chunks_mut(tile * TILES_PER_TASK).enumerate().map(|(n, to)| (plan, n, tile, to)),
            );
        }
        let failure = Mutex::new(None);
        pool.each(tasks, |(plan, number, tile, to)| {
            for (tile, to) in to.chunks_exact_mut(tile).enumerate() {
                if let Err(error) = self.tile(plan, number * TILES_PER_TASK + tile, to) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn tile(&self, plan: &Plan<'_, '_>, tile: usize, to: &mut [u8]) -> Result<(), LoadError> {
        let Wanted { rows, columns, pairs, .. } = *plan.wanted;
        let row = size(plan.info) / rows;
        let lanes = tile * LANES..(tile * LANES + LANES).min(rows);
        let bytes = if pairs == 0 {
            self.read(plan.info, lanes.start * row..lanes.end * row)?
        } else {
            let mut bytes = Vec::with_capacity(lanes.len() * row);
            for lane in lanes {
                let from = unpaired(lane, pairs) * row;
                bytes.extend(self.read(plan.info, from..from + row)?);
            }
            bytes
        };
        pack_tile(plan.kind, plan.info.ggml_dtype, columns, &bytes, to);
        Ok(())
    }

    fn info(&self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo, LoadError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(LoadError::Broken { what: format!("tensor `{name}` is missing") });
        };
        if info.shape.dims() != shape {
            let what = format!("tensor `{name}` is {:?} and should be {shape:?}", info.shape.dims());
            return Err(LoadError::Broken { what });
        }
        Ok(info)
    }

    fn read(&self, info: &TensorInfo, bytes: Range<usize>) -> Result<Vec<u8>, LoadError> {
        let mut read = vec![0; bytes.len()];
        let at = self.content.tensor_data_offset + info.offset + bytes.start as u64;
        read_at(self.file, &mut read, at)?;
        Ok(read)
    }
}

/// Where a tensor goes.
struct Plan<'w, 'a> {
    wanted: &'w Wanted,
    info: &'a TensorInfo,
    kind: Kind,
    place: Range<usize>,
}

impl Plan<'_, '_> {
    fn linear(&self, memory: &Arc<Mmap>) -> Linear {
        let shape = (self.wanted.rows, self.wanted.columns);
        Linear::new(self.kind, shape, memory, self.place.clone())
    }
}

/// Bytes of a tensor in the file.
fn size(info: &TensorInfo) -> usize {
    info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size()
}

/// Which row of a file goes to `row` when pairs are sorted into halves.
pub(super) const fn unpaired(row: usize, pairs: usize) -> usize {
    let (head, channel, half) = (row / pairs * pairs, row % pairs, pairs / 2);
    head + if channel < half { 2 * channel } else { 2 * (channel - half) + 1 }
}

#[cfg(unix)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut to: &mut [u8], mut at: u64) -> io::Result<()> {
    while !to.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, to, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to = &mut to[read..];
        at += read as u64;
    }
    Ok(())
}

fn unsupported(tensor: &str, kind: GgmlDType) -> LoadError {
    LoadError::UnsupportedWeights { tensor: tensor.to_owned(), kind: format!("{kind:?}") }
}

/// Packed tensors begin at cache lines.
const ALIGNMENT: usize = 64;
/// Enough that claiming costs nothing.
const TILES_PER_TASK: usize = 16;
