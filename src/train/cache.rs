//! A cache of the frozen lowest layers' output for each training row. The output is the same in
//! every epoch, because nothing in these layers trains and the cache computes it without dropout.

use super::plan::ModelPlan;
use crate::data::{Batch, copied_to};
use crate::error::{Error, Result};
use crate::eval::in_batches;
use crate::files::FileWriter;
use crate::nn::Packed;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The cached output, in memory and on disk.
///
/// The data and the configuration decide which rows are cached and, unless the device's memory runs
/// out, which rows are computed together. A resumed run therefore gets the same numbers.
pub struct Cache {
    memory: BTreeMap<usize, Tensor>,
    disk: Option<Disk>,
}

/// The cached output on disk, in a file without a name, which the system deletes however the run
/// ends.
struct Disk {
    dir: PathBuf,
    file: FileWriter,
    /// Offset, shape and CRC-32 of each row's output.
    places: BTreeMap<usize, (u64, Vec<i64>, u32)>,
}

impl Cache {
    /// Computes the frozen layers' output for the first rows, as many as fit into the limits, in
    /// batches of `batch_size` rows or more (see [`in_batches`]). Warns if some rows do not fit.
    ///
    /// The file on disk is in `dir`. `progress` is called with the number of rows done and the
    /// number of rows that fit; an error from `progress` ends the computation.
    pub fn fill(
        plan: &ModelPlan,
        batch_size: usize,
        (memory_mib, disk_mib): (u64, u64),
        dir: &Path,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let layers = plan.freeze.frozen_layers();
        let width = plan.model.config.hidden_size as u64 * size_of::<f32>() as u64;
        let lengths = plan.data.lengths();
        let [memory, disk] = [memory_mib, disk_mib].map(|mib| mib.saturating_mul(1 << 20));
        let mut end = 0;
        let fits = |length: &&usize| {
            end += **length as u64 * width;
            end <= memory.saturating_add(disk)
        };
        let count = lengths.iter().take_while(fits).count();
        if count < plan.data.train.len() {
            let all = lengths.iter().sum::<usize>() as u64 * width;
            tracing::warn!(
                "the output of layers 0 to {} takes {} MiB, and {count} of {} rows fit; see training.cache_memory_mib and cache_disk_mib",
                layers.saturating_sub(1),
                all.div_ceil(1 << 20),
                plan.data.train.len()
            );
        }
        let mut cache = Self { memory: BTreeMap::new(), disk: None };
        let mut used = 0;
        let sizes = plan.data.train.iter().take(count).map(|example| example.tokens.size());
        in_batches(&sizes.collect::<Vec<_>>(), batch_size, plan.model.device(), &mut |range| {
            let (rows, done): (Vec<usize>, usize) = (range.clone().collect(), range.end);
            for (row, piece) in range.zip(lower(plan, &rows, layers)?) {
                let bytes = piece.numel() as u64 * size_of::<f32>() as u64;
                used += bytes;
                if used <= memory {
                    cache.memory.insert(row, piece);
                    continue;
                }
                if cache.disk.is_none() {
                    cache.disk = Some(Disk::new(dir)?);
                }
                cache.disk.as_mut().map_or(Ok(()), |disk| disk.keep(row, &piece))?;
            }
            progress(done, count)
        })?;
        Ok(cache)
    }

    /// Returns the input of the layers that train for a batch of `rows`, `[T, H]`. Rows that are
    /// not cached are computed together.
    pub fn lower(&self, plan: &ModelPlan, rows: &[usize], batch: &Packed) -> Result<Tensor> {
        let mut pieces = BTreeMap::new();
        for &row in rows {
            if let Some(piece) = self.get(row)? {
                pieces.insert(row, piece);
            }
        }
        let missing: Vec<usize> =
            rows.iter().copied().filter(|row| !pieces.contains_key(row)).collect();
        if !missing.is_empty() {
            pieces.extend(missing.iter().copied().zip(lower(
                plan,
                &missing,
                plan.freeze.frozen_layers(),
            )?));
        }
        let mut all: Vec<Tensor> =
            rows.iter().filter_map(|row| pieces.get(row)).map(Tensor::shallow_clone).collect();
        let (length, tokens) =
            (batch.input_ids.numel() as i64, all.iter().map(rows_of).sum::<i64>());
        if let Some(first) = all.first().filter(|_| length > tokens) {
            let width = first.size().last().copied().unwrap_or(0);
            all.push(Tensor::f_zeros([length - tokens, width], (first.kind(), Device::Cpu))?);
        }
        copied_to(Tensor::f_cat(&all, 0)?, plan.model.device())
    }

    fn get(&self, row: usize) -> Result<Option<Tensor>> {
        match self.memory.get(&row) {
            Some(piece) => Ok(Some(piece.shallow_clone())),
            None => self.disk.as_ref().map_or(Ok(None), |disk| disk.get(row)),
        }
    }
}

/// Returns `[T, H]` for each of the training rows `rows`, on the CPU: the output of the lowest
/// `layers` layers, without dropout.
fn lower(plan: &ModelPlan, rows: &[usize], layers: usize) -> Result<Vec<Tensor>> {
    let _guard = tch::no_grad_guard();
    let batch = Batch::from_examples(&plan.data.train, rows, None);
    let (packed, _) = batch.to_device(plan.model.device())?;
    let output = plan.model.classifier.lower(&packed, layers)?.f_to_device(Device::Cpu)?;
    let starts = batch.text_starts();
    let starts = starts.iter().zip(starts.iter().skip(1));
    starts.map(|(&a, &b)| Ok(output.f_narrow(0, a, b - a)?.f_detach_copy()?)).collect()
}

fn rows_of(tensor: &Tensor) -> i64 {
    tensor.size().first().copied().unwrap_or(0)
}

impl Disk {
    fn new(dir: &Path) -> Result<Self> {
        let file = FileWriter::unnamed(dir)?;
        Ok(Self { dir: dir.to_owned(), file, places: BTreeMap::new() })
    }

    fn keep(&mut self, row: usize, piece: &Tensor) -> Result<()> {
        let mut bytes = vec![0; piece.numel() * size_of::<f32>()];
        piece.f_copy_data_u8(&mut bytes, piece.numel())?;
        let problem = "write the cached layers (training.cache_frozen_layers) to";
        let start = self.file.size()?;
        self.file.write_all(&bytes).map_err(Error::io(problem, &self.dir))?;
        self.places.insert(row, (start, piece.size(), crc32fast::hash(&bytes)));
        Ok(())
    }

    /// Reads a row's output; `None` if the row is not on disk, or if its bytes cannot be read or
    /// have another checksum.
    fn get(&self, row: usize) -> Result<Option<Tensor>> {
        let Some((start, shape, checksum)) = self.places.get(&row) else { return Ok(None) };
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let mut bytes = vec![0; count * size_of::<f32>()];
        let read = self.file.file().read_exact_at(&mut bytes, *start);
        if read.is_err() || crc32fast::hash(&bytes) != *checksum {
            tracing::warn!("a damaged part of the cached layers is computed again");
            return Ok(None);
        }
        Ok(Some(Tensor::f_from_data_size(&bytes, shape, Kind::Float)?))
    }
}
