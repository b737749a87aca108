//! Means with their spread, and tests of differences between paired measurements.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

/// A mean over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, of a sample (n - 1); none of a single value.
    pub sd: Option<f64>,
}

impl Spread {
    /// Of `values`; none of no values.
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

/// A paired t-test, two-sided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedT {
    /// Pairs.
    pub n: usize,
    /// The mean difference, the first less the second.
    pub difference: f64,
    /// Student's t; none where all differences are equal.
    pub t: Option<f64>,
    /// The probability of such a difference by chance; none where all differences are equal, and not zero.
    pub p: Option<f64>,
}

/// Tests whether the mean of `a - b` differs from 0, as `scipy.stats.ttest_rel`; none of fewer than two pairs.
pub fn paired_t(pairs: &[(f64, f64)]) -> Option<PairedT> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let Spread { n, mean, sd: Some(sd) } = Spread::of(&differences)? else { return None };
    // Equal differences leave no spread to measure them by: rounding alone is none.
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

/// McNemar's test, exact and two-sided, of two classifiers on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Discordant {
    /// Rows that the first alone has right.
    pub first_alone: u64,
    /// Rows that the second alone has right.
    pub second_alone: u64,
}

impl Discordant {
    /// Counts where one is right and the other is not; none where they are not about the same number of rows.
    pub fn of(first: &[bool], second: &[bool]) -> Option<Self> {
        if first.len() != second.len() {
            return None;
        }
        let count = |which: (bool, bool)| {
            first.iter().zip(second).filter(|(a, b)| (**a, **b) == which).count() as u64
        };
        Some(Self { first_alone: count((true, false)), second_alone: count((false, true)) })
    }

    /// The probability of counts so unequal, were either as likely: `scipy.stats.binomtest(first_alone, sum, 0.5)`.
    pub fn p(&self) -> f64 {
        let n = self.first_alone + self.second_alone;
        let less = self.first_alone.min(self.second_alone);
        match Binomial::new(0.5, n) {
            Ok(binomial) if n > 0 => (2.0 * binomial.cdf(less)).min(1.0),
            _ => 1.0,
        }
    }
}

/// Holm's correction (1979): what each p-value of several tests is worth together.
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
