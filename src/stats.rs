//! Means with their spread, tests of differences between paired measurements, and the course of
//! values over a run.

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

/// The discordant pairs of two classifiers on the same rows, for an exact two-sided test: McNemar's
/// test if each row has one answer, and the sign test if each row has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordant {
    /// Number of rows that only the first predicts right, or with fewer wrong answers.
    pub first_alone: u64,
    /// Number of rows that only the second predicts right, or with fewer wrong answers.
    pub second_alone: u64,
}

impl Discordant {
    /// Counts the rows that only one of the two predicts right; `None` if the lengths differ.
    pub fn of(first: &[bool], second: &[bool]) -> Option<Self> {
        let wrong = |right: &bool| u32::from(!right);
        let pairs = first.iter().map(wrong).zip(second.iter().map(wrong));
        (first.len() == second.len()).then(|| Self::of_wrong(pairs))
    }

    /// Counts the rows at which the two have different numbers of wrong answers.
    pub fn of_wrong(pairs: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut counts = Self { first_alone: 0, second_alone: 0 };
        for (first, second) in pairs {
            counts.first_alone += u64::from(first < second);
            counts.second_alone += u64::from(second < first);
        }
        counts
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

/// The course of a value over the steps of a run, as means of parts of equal length. The number of
/// parts stays below [`Course::PARTS`], however long the run becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Number of steps in a part.
    steps: u64,
    /// The sum and the number of the values in each part.
    parts: Vec<(f64, u64)>,
}

impl Default for Course {
    fn default() -> Self {
        Self { steps: 1, parts: vec![] }
    }
}

impl Course {
    /// The number of parts at which every two parts become one.
    const PARTS: usize = 40;

    /// Adds the value of `step`, counted from 1. NaN and infinity are left out.
    pub fn add(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let part = loop {
            let part = step.saturating_sub(1) / self.steps.max(1);
            match usize::try_from(part) {
                Ok(part) if part < Self::PARTS => break part,
                _ => self.join(),
            }
        };
        self.parts.resize(self.parts.len().max(part + 1), (0.0, 0));
        if let Some((sum, count)) = self.parts.get_mut(part) {
            *sum += value;
            *count += 1;
        }
    }

    /// Joins every two parts.
    fn join(&mut self) {
        let sum = |two: &[(f64, u64)]| {
            two.iter().fold((0.0, 0), |(sum, count), (a, b)| (sum + a, count + b))
        };
        self.parts = self.parts.chunks(2).map(sum).collect();
        self.steps = self.steps.max(1).saturating_mul(2);
    }

    /// The means of the first tenth, of the tenth before the last, and of the last tenth; `None`
    /// with values in fewer than ten parts.
    pub fn tenths(&self) -> Option<[f64; 3]> {
        let parts: Vec<(f64, u64)> =
            self.parts.iter().copied().filter(|(_, count)| *count > 0).collect();
        let (tenth, count) = (parts.len().div_ceil(10), parts.len());
        let mean = |from: usize| {
            let (sum, count) = parts
                .get(from..from + tenth)?
                .iter()
                .fold((0.0, 0), |(sum, count), (a, b)| (sum + a, count + b));
            Some(sum / count as f64)
        };
        if count < 10 {
            return None;
        }
        Some([mean(0)?, mean(count - 2 * tenth)?, mean(count - tenth)?])
    }
}
