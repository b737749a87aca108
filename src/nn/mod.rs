//! Layers over packed tokens: no padding, no attention mask.
//!
//! Shape suffixes, here and in `models/`: `T` tokens of the batch, `R` rows (tokens, or first
//! tokens alone), `B` sequences, `H` hidden size, `N` heads, `D = H / N`, `I` intermediate size,
//! `L` labels. So `x_TH` is `[T, H]`.

mod activation;
mod adapter;
mod attention;
mod bias;
mod dropout;
mod embedding;
mod layer_norm;
mod linear;
mod lora;
mod pooling;
mod precision;
mod route;

pub use crate::native::TaskRow;
pub use activation::Activation;
pub use adapter::{Adapter, AdapterShape, NonLinearity};
pub use attention::{Attention, Projected};
pub use bias::{Bias, Weight};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
pub use linear::{Joined, Linear};
pub use lora::{Lora, LoraShape};
pub use pooling::{Pooling, WindowPooling, mean};
pub use precision::Precision;
pub use route::TaskRows;

use crate::error::Result;
use std::borrow::Cow;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor, nn};

/// The path of `module`, such as `attention.self.query`, below `path`.
pub fn below<'a>(path: &nn::Path<'a>, module: &str) -> nn::Path<'a> {
    module.split('.').fold(path.clone(), |path, name| path / name)
}

/// Places a variable in the store. The zeros take no memory until the model is loaded and the
/// variable gets memory of its own.
pub fn variable(path: &nn::Path<'_>, name: &str, shape: &[i64]) -> Result<Tensor> {
    let zeros = Tensor::f_zeros([1], (Kind::Float, path.device()))?;
    Ok(path.add(name, zeros.f_expand(shape, false)?, true))
}

/// Returns `[B, L]` as a vector for each row, on the CPU.
pub fn to_rows(values: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(Vec::try_from(values.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?)?)
}

/// Rows between two layers: the sum of what the layers so far added, normalized, `[R, H]`.
#[derive(Debug)]
pub struct Hidden {
    /// In fp32, for the residual.
    pub full: Tensor,
    /// In the products' half precision, if a kernel made both at once.
    rounded: Option<Tensor>,
}

impl Hidden {
    /// Takes rows in fp32. Products round them.
    pub fn new(full: Tensor) -> Self {
        Self { full, rounded: None }
    }

    /// The input of products.
    pub fn input(&self) -> &Tensor {
        self.rounded.as_ref().unwrap_or(&self.full)
    }
}

/// A batch on its device: the tokens of all sequences, one after the other.
#[derive(Debug)]
pub struct Packed {
    /// Vocabulary ids, int64 `[T]`.
    pub input_ids: Tensor,
    /// Position of each token in its sequence, int64 `[T]`.
    pub position_ids: Tensor,
    /// Segment of each token (0, or 1 in the second text of a pair), int64 `[T]`.
    pub token_type_ids: Tensor,
    /// The row where each sequence begins, and the end `T`, on the host. After the batch's `B`
    /// sequences, there may be a dummy sequence that pads the batch.
    pub cu_seqlens: Vec<i64>,
    /// The rows of the first tokens, int64 `[B]`; longer after [`Packed::fill_first`].
    pub first: Tensor,
    /// The number of sequences of each text, on the host; `None` if each text is one sequence.
    pub windows: Option<Vec<i64>>,
    /// A dropout key for each token, int64 `[T]`; `None` when evaluating.
    pub dropout_keys: Option<Tensor>,
    /// The dropout key of the whole batch, on the host.
    pub seed: i64,
    /// The task's row of each sequence, the dummy sequence included. `None` if all sequences are of
    /// one task.
    pub tasks: Option<TaskRows>,
}

/// The rows that a layer computes: their dropout keys and where each sequence's rows begin.
pub struct PackedRows<'a> {
    /// A key for each row, int64 `[R]`; `None` when evaluating.
    pub keys: Option<Tensor>,
    /// The batch's dropout key, for kernels that take no key for each row.
    pub seed: i64,
    /// The index where each sequence's rows begin, and the end `R`, for the sequences of
    /// [`Packed::cu_seqlens`].
    pub cu_seqlens: Cow<'a, [i64]>,
    tasks: Option<&'a TaskRows>,
    /// The row of [`TaskRows`]'s table that each row's vectors come from, int64 `[R]`.
    task_index: OnceCell<Tensor>,
}

impl<'a> PackedRows<'a> {
    /// Takes the dropout keys, the batch's dropout key, the starts, and the tasks of a mixed batch.
    pub fn new(
        keys: Option<Tensor>,
        seed: i64,
        cu_seqlens: impl Into<Cow<'a, [i64]>>,
        tasks: Option<&'a TaskRows>,
    ) -> Self {
        Self { keys, seed, cu_seqlens: cu_seqlens.into(), tasks, task_index: OnceCell::new() }
    }
}

impl Packed {
    /// Number of sequences, `B`, before [`Packed::fill_first`].
    pub fn sequences(&self) -> usize {
        self.first.numel()
    }

    /// The logits of each text from those of each sequence.
    pub fn by_text(&self, logits: Tensor, pooling: WindowPooling) -> Result<Tensor> {
        match &self.windows {
            None => Ok(logits),
            Some(windows) => pooling.pool(&logits, windows),
        }
    }

    /// All tokens as rows.
    pub fn all_rows(&self) -> PackedRows<'_> {
        let keys = self.dropout_keys.as_ref().map(Tensor::shallow_clone);
        PackedRows::new(keys, self.seed, &self.cu_seqlens, self.tasks.as_ref())
    }

    /// The first tokens as rows.
    pub fn first_rows(&self) -> Result<PackedRows<'_>> {
        let keys = self
            .dropout_keys
            .as_ref()
            .map(|keys| keys.f_index_select(0, &self.first))
            .transpose()?;
        let count = self.first.numel() as i64;
        // The dummy sequence that pads the batch has only the rows of `fill_first`, if any.
        let starts = (0..self.cu_seqlens.len() as i64).map(|start| start.min(count));
        let mut starts: Vec<i64> = starts.collect();
        starts.last_mut().into_iter().for_each(|end| *end = count);
        Ok(PackedRows::new(keys, self.seed, starts, self.tasks.as_ref()))
    }

    /// Pads the rows of the first tokens to one of a few numbers, with rows whose results mean
    /// nothing. oneDNN compiles code for every new shape. For predicting on a CPU.
    pub fn fill_first(&mut self) -> Result<()> {
        let (count, device) = (self.first.numel(), self.first.device());
        // 1, 2, 3, 4, 6, 8, 12, 16, 24, ...
        let (upper, middle) = (count.next_power_of_two(), count.next_power_of_two() / 4 * 3);
        let filled = if middle >= count { middle } else { upper };
        if filled == count || device != Device::Cpu {
            return Ok(());
        }
        // The last token is of the sequence that gets these rows.
        let last = Tensor::f_full(
            [(filled - count) as i64],
            self.input_ids.numel() as i64 - 1,
            (Kind::Int64, device),
        )?;
        self.first = Tensor::f_cat(&[&self.first, &last], 0)?;
        Ok(())
    }
}
