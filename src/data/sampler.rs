//! The order of the data: a pure function of seed and epoch, so that nothing random needs saving.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// The order in which an epoch visits `count` rows.
pub fn epoch_order(count: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if shuffle {
        permute(&mut order, seed, epoch);
    }
    order
}

/// Size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// A number of rows.
    Rows(usize),
    /// As many rows as have at most this number of tokens in total, and at least one row.
    Tokens(usize),
}

impl BatchSize {
    /// This size, `count` times.
    pub fn times(self, count: usize) -> Self {
        match self {
            Self::Rows(rows) => Self::Rows(rows.saturating_mul(count)),
            Self::Tokens(tokens) => Self::Tokens(tokens.saturating_mul(count)),
        }
    }

    /// Cuts `rows` into batches, in their order. `lengths` holds the number of tokens of each row
    /// of the data.
    pub fn cut<'a>(
        self,
        mut rows: &'a [usize],
        lengths: &'a [usize],
    ) -> impl Iterator<Item = &'a [usize]> {
        std::iter::from_fn(move || {
            let mut sum = 0;
            let mut fits = |row: &usize| {
                sum += lengths.get(*row).copied().unwrap_or(0);
                matches!(self, Self::Tokens(most) if sum <= most)
            };
            let count = match self {
                Self::Rows(count) => count,
                Self::Tokens(_) => rows.iter().take_while(|row| fits(row)).count(),
            };
            let (batch, rest) = rows.split_at(count.max(1).min(rows.len()));
            rows = rest;
            Some(batch).filter(|batch| !batch.is_empty())
        })
    }
}

/// The assignment of rows to the steps of an epoch.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// Number of tokens of each row.
    pub lengths: Vec<usize>,
    /// Seed of the shuffling.
    pub seed: u64,
    /// Whether each epoch shuffles the rows anew.
    pub shuffle: bool,
    /// Size of a step.
    pub step: BatchSize,
}

impl Sampler {
    /// The order in which `epoch` visits the rows.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        epoch_order(self.lengths.len(), self.seed, epoch, self.shuffle)
    }

    /// Number of steps of `epoch`, at least 1. With [`BatchSize::Rows`] it is the same for every
    /// epoch.
    pub fn steps(&self, epoch: u64) -> u64 {
        let count = match self.step {
            BatchSize::Rows(rows) => self.lengths.len().div_ceil(rows.max(1)),
            BatchSize::Tokens(_) => self.step.cut(&self.order(epoch), &self.lengths).count(),
        };
        count.max(1) as u64
    }
}

/// Splits rows into two parts, class by class: `fraction` of each class goes to the second part. If
/// a class has two rows or more, at least one goes to each part; a single row goes to the first.
///
/// Returns the row numbers of both parts, ascending.
pub fn split_by_class(labels: &[usize], fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(row);
    }
    let (mut first, mut second) = (vec![], vec![]);
    for (class, mut rows) in classes {
        // Each class has its own random stream, distinct from those of the epochs.
        permute(&mut rows, seed, u64::MAX - class as u64);
        let count = ((rows.len() as f64 * fraction).round() as usize)
            .clamp(usize::from(rows.len() > 1), rows.len() - 1);
        second.extend(rows.drain(..count));
        first.extend(rows);
    }
    first.sort_unstable();
    second.sort_unstable();
    (first, second)
}

/// Draws `count` of the rows at random, each class in proportion, and returns their numbers,
/// ascending. `classes` holds the class of each row; without classes, it holds the same number for
/// each row.
pub fn draw(classes: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let total = classes.len().max(1);
    let mut by_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, &class) in classes.iter().enumerate() {
        by_class.entry(class).or_default().push(row);
    }
    // Largest remainder method: each class gets the whole part of its share, and the rows left over
    // go to the classes with the largest remainders, one each; of equals, to the rarer class.
    let share = |rows: &Vec<usize>| rows.len() * count.min(total);
    let left =
        count.min(classes.len()) - by_class.values().map(|rows| share(rows) / total).sum::<usize>();
    let mut by_remainder: Vec<_> =
        by_class.iter().map(|(&c, rows)| (share(rows) % total, rows.len(), c)).collect();
    by_remainder
        .sort_by_key(|&(remainder, rows, class)| (std::cmp::Reverse(remainder), rows, class));
    let more: BTreeSet<usize> =
        by_remainder.into_iter().take(left).map(|(_, _, class)| class).collect();
    let mut drawn = vec![];
    for (class, mut rows) in by_class {
        let take = share(&rows) / total + usize::from(more.contains(&class));
        // Each class has its own random stream, distinct from those of the epochs and of the split.
        permute(&mut rows, seed, (1 << 63) + class as u64);
        drawn.extend(rows.iter().take(take));
    }
    drawn.sort_unstable();
    drawn
}

/// Shuffles `items` (Fisher-Yates). Written out here because a library's shuffle may change with
/// its version, and every run with it.
fn permute(items: &mut [usize], seed: u64, stream: u64) {
    let mut random = Random::new(seed, stream);
    for i in (1..items.len()).rev() {
        // The bias of a 64-bit product is below 1e-12 for any data set that fits in memory.
        let j = ((u128::from(random.bits()) * (i as u128 + 1)) >> 64) as usize;
        items.swap(i, j);
    }
}
