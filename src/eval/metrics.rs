//! Metrics, as scikit-learn and SciPy define them. An undefined metric is 0 (scikit-learn's
//! `zero_division=0`).

use std::collections::BTreeMap;
use std::iter::Sum;

/// Returns `accuracy`, `f1`, `f1_micro`, `f1_macro` and `matthews`.
///
/// `f1` is that of class 1 if there are two classes, and `f1_macro` otherwise. `f1_macro` is the
/// mean over the classes that occur in `labels` or `predictions`. Rows with a class of `num_labels`
/// or more are left out.
pub fn classification(
    labels: &[usize],
    predictions: &[usize],
    num_labels: usize,
) -> BTreeMap<String, f64> {
    let counts = count_classes(labels, predictions, num_labels);
    let all: ClassCounts = counts.iter().sum();
    let f1_macro = mean(counts.iter().filter(|c| c.support + c.predicted > 0).map(ClassCounts::f1));
    let f1 = match &counts[..] {
        [_, positive] => positive.f1(),
        _ => f1_macro,
    };
    // Gorodkin's multi-class form (2004), of which the binary one is a case.
    let sum = |product: fn(&ClassCounts) -> f64| counts.iter().map(product).sum::<f64>();
    let rows = all.support as f64;
    let covariance =
        all.hits as f64 * rows - sum(|c: &ClassCounts| c.support as f64 * c.predicted as f64);
    let spread = (rows * rows - sum(|c| (c.predicted as f64).powi(2)))
        * (rows * rows - sum(|c| (c.support as f64).powi(2)));
    named([
        ("accuracy", all.recall()),
        ("f1", f1),
        ("f1_micro", all.f1()),
        ("f1_macro", f1_macro),
        ("matthews", ratio(covariance, spread.sqrt())),
    ])
}

/// Counts for multi-label metrics, added row by row, so that memory grows with the labels and not
/// with the rows.
#[derive(Debug, Clone)]
pub struct MultiLabel {
    pub(super) counts: Vec<ClassCounts>,
    right: u64,
    rows: u64,
}

impl MultiLabel {
    /// Counts of no rows, for `num_labels` labels.
    pub fn new(num_labels: usize) -> Self {
        Self { counts: vec![ClassCounts::default(); num_labels], right: 0, rows: 0 }
    }

    /// Counts a row with the true `labels` and the predicted labels `predictions`, both as label
    /// numbers in ascending order. A number of `num_labels` or more is left out of the counts by
    /// label.
    pub fn add(&mut self, labels: &[u32], predictions: &[u32]) {
        let mut count = |number: &u32, what: fn(&mut ClassCounts)| {
            self.counts.get_mut(*number as usize).into_iter().for_each(what);
        };
        labels.iter().for_each(|number| count(number, |label| label.support += 1));
        predictions.iter().for_each(|number| count(number, |label| label.predicted += 1));
        let hit = |number: &&u32| predictions.binary_search(number).is_ok();
        labels.iter().filter(hit).for_each(|number| count(number, |label| label.hits += 1));
        self.right += u64::from(labels == predictions);
        self.rows += 1;
    }

    /// Returns `accuracy` (the share of rows in which every label is right), `f1_micro`, and
    /// `f1_macro`, the mean over all labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        named([
            ("accuracy", ratio(self.right as f64, self.rows as f64)),
            ("f1_micro", self.counts.iter().sum::<ClassCounts>().f1()),
            ("f1_macro", mean(self.counts.iter().map(ClassCounts::f1))),
        ])
    }
}

impl MultiLabel {
    /// Whether the predictions follow the labels by more than chance explains. An answer that does
    /// not depend on the row has a Matthews correlation of 0 with each label, with a standard
    /// deviation of 1 / sqrt(rows), and so has the mean over labels with one of
    /// 1 / sqrt(rows x labels), if labels are independent.
    pub(super) fn follows_labels(&self) -> bool {
        let rows = self.rows as f64;
        let correlations: Vec<f64> = self
            .counts
            .iter()
            .filter_map(|label| {
                let (support, predicted) = (label.support as f64, label.predicted as f64);
                let spread = support * (rows - support) * predicted * (rows - predicted);
                let covariance = label.hits as f64 * rows - support * predicted;
                (spread > 0.0).then(|| covariance / spread.sqrt())
            })
            .collect();
        let labels = correlations.len() as f64;
        correlations.iter().sum::<f64>() / labels > 2.0 / (rows * labels).sqrt()
    }
}

/// Returns the number of labels in which two rows differ, both as label numbers in ascending order.
pub fn wrong(labels: &[u32], predictions: &[u32]) -> u32 {
    let both = labels.iter().filter(|label| predictions.binary_search(label).is_ok()).count();
    (labels.len() + predictions.len()).saturating_sub(2 * both) as u32
}

/// Returns `pearson`, `spearman` (equal values share the mean of their ranks), `mse` and `mae`.
///
/// If all values of one side are equal, no correlation is defined: SciPy returns NaN, and this
/// function returns 0. A NaN value makes every metric NaN, and an infinite value may.
pub fn regression(gold: &[f64], predicted: &[f64]) -> BTreeMap<String, f64> {
    let (gold, predicted): (Vec<f64>, Vec<f64>) = gold.iter().zip(predicted).unzip();
    let errors = || gold.iter().zip(&predicted).map(|(g, p)| g - p);
    named([
        ("pearson", pearson(&gold, &predicted)),
        ("spearman", pearson(&ranks(&gold), &ranks(&predicted))),
        ("mse", mean(errors().map(|error| error * error))),
        ("mae", mean(errors().map(f64::abs))),
    ])
}

/// The counts of one class, or of several.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClassCounts {
    hits: u64,
    predicted: u64,
    pub(super) support: u64,
}

impl ClassCounts {
    pub(super) fn precision(&self) -> f64 {
        ratio(self.hits as f64, self.predicted as f64)
    }

    pub(super) fn recall(&self) -> f64 {
        ratio(self.hits as f64, self.support as f64)
    }

    pub(super) fn f1(&self) -> f64 {
        ratio(2.0 * self.hits as f64, (self.support + self.predicted) as f64)
    }
}

impl<'a> Sum<&'a ClassCounts> for ClassCounts {
    fn sum<I: Iterator<Item = &'a ClassCounts>>(counts: I) -> ClassCounts {
        counts.fold(ClassCounts::default(), |a, b| ClassCounts {
            hits: a.hits + b.hits,
            predicted: a.predicted + b.predicted,
            support: a.support + b.support,
        })
    }
}

/// Returns the true and the predicted class of each row, where both are less than `num_labels`.
pub(super) fn pairs(
    labels: &[usize],
    predictions: &[usize],
    num_labels: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let pairs = labels.iter().copied().zip(predictions.iter().copied());
    pairs.filter(move |&(label, guess)| label < num_labels && guess < num_labels)
}

pub(super) fn count_classes(
    labels: &[usize],
    predictions: &[usize],
    num_labels: usize,
) -> Vec<ClassCounts> {
    let mut counts = vec![ClassCounts::default(); num_labels];
    for (label, guess) in pairs(labels, predictions, num_labels) {
        if let Some(class) = counts.get_mut(label) {
            class.support += 1;
            class.hits += u64::from(label == guess);
        }
        if let Some(class) = counts.get_mut(guess) {
            class.predicted += 1;
        }
    }
    counts
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (deviations(a), deviations(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    ratio(dot(&a, &b), (dot(&a, &a) * dot(&b, &b)).sqrt()).clamp(-1.0, 1.0)
}

/// Returns the deviations from the mean, divided by the largest of them so that no square overflows
/// or vanishes.
fn deviations(values: &[f64]) -> Vec<f64> {
    // The first value is subtracted before the mean: equal values then give exact zeros, and a
    // large offset costs no digits.
    let first = values.first().copied().unwrap_or(0.0);
    let shifted: Vec<f64> = values.iter().map(|value| value - first).collect();
    let center = mean(shifted.iter().copied());
    let largest = shifted.iter().map(|value| (value - center).abs()).fold(0.0, f64::max);
    // Zeros stay zeros. NaN, which `max` ignores, stays NaN.
    let scale = largest.max(f64::MIN_POSITIVE);
    shifted.iter().map(|value| (value - center) / scale).collect()
}

/// Returns each value's rank, counted from 1. Equal values share the mean of their ranks, and the
/// rank of NaN is NaN.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![f64::NAN; values.len()];
    let mut sorted: Vec<(f64, &mut f64)> = values.iter().copied().zip(&mut ranks).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0;
    for equal in sorted.chunk_by_mut(|a, b| a.0 == b.0) {
        let mean = before as f64 + (equal.len() + 1) as f64 / 2.0;
        before += equal.len();
        for (value, rank) in equal {
            if !value.is_nan() {
                **rank = mean;
            }
        }
    }
    ranks
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    ratio(sum, count)
}

pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

fn named<const N: usize>(metrics: [(&str, f64); N]) -> BTreeMap<String, f64> {
    metrics.map(|(name, value)| (name.to_owned(), value)).into()
}
