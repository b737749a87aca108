//! Means with their spread, and tests of differences between paired measurements.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

/// Significance level: differences with p below it are reported as significant.
pub const SIGNIFICANT: f64 = 0.05;

/// The mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Number of values.
    pub n: usize,
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (n - 1); `None` for a single value.
    pub sd: Option<f64>,
}

impl Spread {
    /// The spread of `values`; `None` if `values` is empty.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { n, mean, sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }
}

/// The result of a two-sided paired t-test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedT {
    /// Number of pairs.
    pub n: usize,
    /// The mean difference, the first minus the second.
    pub difference: f64,
    /// Student's t; `None` if all differences are equal.
    pub t: Option<f64>,
    /// The p-value. If all differences are equal: 1 if they are zero, else `None`.
    pub p: Option<f64>,
}

/// Tests whether the mean of `a - b` differs from 0, like `scipy.stats.ttest_rel`; `None` for fewer
/// than two pairs.
pub fn paired_t(pairs: &[(f64, f64)]) -> Option<PairedT> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let Spread { n, mean, sd: Some(sd) } = Spread::of(&differences)? else { return None };
    // Equal differences have no spread to test by. Rounding errors do not count as spread.
    let scale = pairs.iter().map(|(a, b)| a.abs().max(b.abs())).fold(0.0, f64::max);
    if sd <= 1e-12 * scale {
        let p = (mean.abs() <= 1e-12 * scale).then_some(1.0);
        return Some(PairedT { n, difference: mean, t: None, p });
    }
    let t = mean / (sd / (n as f64).sqrt());
    let student = StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()?;
    Some(PairedT {
        n,
        difference: mean,
        t: Some(t),
        p: Some((2.0 * student.cdf(-t.abs())).min(1.0)),
    })
}

/// The discordant pairs of two classifiers on the same rows, for McNemar's exact two-sided test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordant {
    /// Number of rows that only the first predicts right.
    pub first_alone: u64,
    /// Number of rows that only the second predicts right.
    pub second_alone: u64,
}

impl Discordant {
    /// Counts the rows that only one of the two predicts right; `None` if the lengths differ.
    pub fn of(first: &[bool], second: &[bool]) -> Option<Self> {
        if first.len() != second.len() {
            return None;
        }
        let count = |which: (bool, bool)| {
            first.iter().zip(second).filter(|(a, b)| (**a, **b) == which).count() as u64
        };
        Some(Self { first_alone: count((true, false)), second_alone: count((false, true)) })
    }

    /// The p-value, `scipy.stats.binomtest(first_alone, first_alone + second_alone, 0.5)`; 1 if
    /// both counts are zero.
    pub fn p(&self) -> f64 {
        let n = self.first_alone + self.second_alone;
        let less = self.first_alone.min(self.second_alone);
        match Binomial::new(0.5, n) {
            Ok(binomial) if n > 0 => (2.0 * binomial.cdf(less)).min(1.0),
            _ => 1.0,
        }
    }
}

/// Holm's correction (1979): the adjusted p-values of several tests, in the order of `values`.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut corrected = vec![1.0; values.len()];
    let mut most = 0.0_f64;
    for (rank, (place, p)) in sorted.into_iter().enumerate() {
        most = most.max((p * (values.len() - rank) as f64).min(1.0));
        if let Some(slot) = corrected.get_mut(place) {
            *slot = most;
        }
    }
    corrected
}
