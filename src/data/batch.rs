//! Batches: plain vectors on the host, and their tensors on a device.

use super::example::Example;
use super::labels::Target;
use super::tokenize::{Encoding, TextSize, Windows};
use crate::error::Result;
use crate::native;
use crate::nn::Packed;
use tch::{Device, Tensor};

/// The seed and the epoch from which the dropout keys of a batch are derived.
#[derive(Debug, Clone, Copy)]
pub struct DropoutKeys {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
}

/// A packed batch: the tokens of `B` sequences one after the other, without padding. A text is one
/// sequence, or several windows.
#[derive(Debug, Default)]
pub struct Batch {
    /// Vocabulary ids, `[T]`.
    pub input_ids: Vec<i64>,
    /// Positions within each sequence, `[T]`.
    pub position_ids: Vec<i64>,
    /// Segment ids, 0 or 1, `[T]`.
    pub token_type_ids: Vec<i64>,
    /// Cumulative lengths of the sequences, `[B + 1]`.
    pub cu_seqlens: Vec<i64>,
    /// Length of the longest sequence.
    pub max_seqlen: usize,
    /// Numbers of sequences of the texts, in order; empty if each text is one sequence.
    pub windows: Vec<i64>,
    /// Class numbers of the texts; empty unless the targets are classes.
    pub classes: Vec<i64>,
    /// Targets of multi-label tasks and regressions, `L` for each text; empty if the targets are
    /// classes.
    pub values: Vec<f32>,
    /// Dropout keys of the tokens, `[T]`; empty when evaluating.
    pub dropout_keys: Vec<i64>,
}

impl Batch {
    /// Packs sequences without labels.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Encoding>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        sequences.into_iter().for_each(|sequence| batch.push(sequence));
        batch
    }

    /// Packs texts without labels.
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a Windows>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        texts.into_iter().for_each(|text| batch.push_text(text));
        batch.settled()
    }

    /// Packs the examples at `rows`. `dropout` is for training; `None` leaves out the dropout keys.
    pub fn from_examples(
        examples: &[Example],
        rows: &[usize],
        dropout: Option<DropoutKeys>,
    ) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for (&row, example) in rows.iter().filter_map(|row| Some((row, examples.get(*row)?))) {
            batch.push_text(&example.tokens);
            match &example.target {
                Target::Class(class) => batch.classes.push(*class as i64),
                Target::Labels { present, num_labels } => {
                    let start = batch.values.len();
                    batch.values.resize(start + num_labels, 0.0);
                    for &label in present {
                        if let Some(value) = batch.values.get_mut(start + label as usize) {
                            *value = 1.0;
                        }
                    }
                }
                Target::Number(number) => batch.values.push(*number),
            }
            if let Some(keys) = dropout {
                // The key uses the row's number, not its place in the batch, so that splitting a
                // batch keeps its dropout masks.
                let row_key = mix(mix(mix(keys.seed) ^ keys.epoch) ^ row as u64);
                for (window, number) in example.tokens.iter().zip(0_u64..) {
                    let key = if number == 0 { row_key } else { mix(row_key ^ (number << 32)) };
                    let keys = (0..window.ids.len() as u64).map(|i| mix(key ^ i) as i64);
                    batch.dropout_keys.extend(keys);
                }
            }
        }
        batch.settled()
    }

    fn push_text(&mut self, text: &Windows) {
        text.iter().for_each(|window| self.push(window));
        self.windows.push(text.count() as i64);
    }

    /// The batch without numbers of windows if each text is one sequence.
    fn settled(mut self) -> Self {
        if self.windows.iter().all(|count| *count == 1) {
            self.windows.clear();
        }
        self
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        if self.windows.is_empty() { self.sequences() } else { self.windows.len() }
    }

    fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// The number of sequences of each text.
    pub fn sequences_by_text(&self) -> Vec<usize> {
        match self.windows.is_empty() {
            true => vec![1; self.sequences()],
            false => self.windows.iter().map(|&count| count as usize).collect(),
        }
    }

    /// The first token of each text, and the end.
    pub fn text_starts(&self) -> Vec<i64> {
        let mut sequence = 0;
        let ends = self.sequences_by_text().into_iter().map(|count| {
            sequence += count;
            self.cu_seqlens.get(sequence).copied().unwrap_or_default()
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn push(&mut self, sequence: &Encoding) {
        let length = sequence.ids.len();
        self.input_ids.extend(sequence.ids.iter().map(|&id| i64::from(id)));
        self.position_ids.extend(0..length as i64);
        self.token_type_ids.extend((0..length).map(|i| i64::from(i >= sequence.first)));
        self.cu_seqlens.push(self.input_ids.len() as i64);
        self.max_seqlen = self.max_seqlen.max(length);
    }

    /// Number of tokens, `T`.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// The packed tensors on `device`, and the targets: int64 `[B]` for classes, else fp32
    /// `[B, L]`.
    ///
    /// Pads the batch to one of a few lengths with a dummy sequence. oneDNN compiles code for every
    /// new shape, so we keep the number of shapes small.
    pub fn to_device(&self, device: Device) -> Result<(Packed, Tensor)> {
        self.sent(device, filled(self.tokens()))
    }

    /// The packed tensors on `device`, without padding: for products that are not by oneDNN.
    pub fn unpadded(&self, device: Device) -> Result<Packed> {
        let (packed, _) = self.sent(device, self.tokens())?;
        Ok(packed)
    }

    /// The packed tensors on `device`, padded to `length` tokens, and the targets.
    fn sent(&self, device: Device, length: usize) -> Result<(Packed, Tensor)> {
        let tokens = self.tokens();
        let starts = self.cu_seqlens.split_last().map_or(&[][..], |(_, starts)| starts);
        let per_token = [
            &self.input_ids,
            // Padded with position 0, which every model has.
            &self.position_ids,
            &self.token_type_ids,
            &self.dropout_keys,
        ];
        // All integers are in one tensor, so that a single copy moves them to the device.
        let mut numbers = Vec::with_capacity(4 * length + 2 * starts.len());
        for values in per_token {
            numbers.extend(values);
            numbers.resize(numbers.len() + if values.is_empty() { 0 } else { length - tokens }, 0);
        }
        numbers.extend(starts);
        numbers.extend(&self.classes);
        let all = copied_to(Tensor::f_from_slice(&numbers)?, device)?;
        let mut at = 0;
        let mut piece = |count: usize| {
            at += count as i64;
            all.f_narrow(0, at - count as i64, count as i64)
        };
        let mut cu_seqlens = self.cu_seqlens.clone();
        if length > tokens {
            cu_seqlens.push(length as i64);
        }
        let packed = Packed {
            input_ids: piece(length)?,
            position_ids: piece(length)?,
            token_type_ids: piece(length)?,
            dropout_keys: match self.dropout_keys.is_empty() {
                true => None,
                false => Some(piece(length)?),
            },
            seed: self.dropout_keys.first().copied().unwrap_or(0),
            cu_seqlens,
            first: piece(starts.len())?,
            windows: if self.windows.is_empty() { None } else { Some(self.windows.clone()) },
            tasks: None,
        };
        let targets = if self.values.is_empty() {
            piece(self.classes.len())?
        } else {
            let texts = self.texts() as i64;
            copied_to(Tensor::f_from_slice(&self.values)?.f_view([texts, -1])?, device)?
        };
        Ok((packed, targets))
    }
}

/// Copies `tensor` to `device`. To a GPU it copies from pinned memory, and returns before the copy
/// has ended.
pub fn copied_to(tensor: Tensor, device: Device) -> Result<Tensor> {
    if !device.is_cuda() {
        return Ok(tensor.f_to_device(device)?);
    }
    let pinned = native::pinned(&tensor)?;
    Ok(pinned.f_to_device_(device, pinned.kind(), true, false)?)
}

/// Tokens in a forward pass above which a larger batch is no faster on `device`.
pub fn worthwhile(device: Device) -> usize {
    if device.is_cuda() { 16_384 } else { 2_048 }
}

/// Number of texts to predict in one batch, given the sizes of those that are left: texts of `rows`
/// windows, or more as long as they have at most `worthwhile` tokens in total, and one text at
/// least.
pub fn texts_per_batch(sizes: &[TextSize], rows: usize, worthwhile: usize) -> usize {
    let (mut windows, mut tokens) = (0, 0);
    let fits = |size: &&TextSize| {
        windows += size.windows;
        tokens += size.tokens;
        windows <= rows || tokens <= worthwhile
    };
    sizes.iter().take_while(fits).count().max(1)
}

/// Length that `tokens` tokens are padded to: a multiple of 16, and for long batches a multiple of
/// a larger step, so that there are at most 32 lengths between a power of two and the next.
fn filled(tokens: usize) -> usize {
    let step = (tokens.next_power_of_two() / 64).max(16);
    tokens.next_multiple_of(step)
}

/// splitmix64's finalizer (Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
