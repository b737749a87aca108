//! The constant answer: what an evaluation measures without a model, and whether the model is
//! better.

use super::metrics::{MultiLabel, classification, mean, regression, wrong};
use crate::stats::{Discordant, SIGNIFICANT, paired_t};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The best answer that is the same for every evaluated row, beside the model's answers to the same
/// rows. A model that is not better has not learned to tell rows apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// The answer, taken from the evaluated rows themselves.
    pub answer: ConstantAnswer,
    /// The metrics of the answer, as of an evaluation, without the loss. Correlations of a constant
    /// are undefined and left out.
    pub metrics: BTreeMap<String, f64>,
    /// The test of the model against the answer.
    pub test: ConstantTest,
    /// The two-sided p-value of the test; `None` if the test has none.
    pub p: Option<f64>,
    /// The test's conclusion.
    pub verdict: ConstantVerdict,
    /// Whether the model has learned: the verdict is [`ConstantVerdict::Better`], or the
    /// correlation of its answers with the labels (`matthews`; the mean over several labels) is
    /// larger than chance explains. With rare classes or labels, a model can find them and have no
    /// more right than the constant answer.
    pub learned: bool,
}

/// The answer that is the same for every row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConstantAnswer {
    /// The largest class, the first one if several are equally large.
    Label(String),
    /// Each label that more than half of the rows have.
    Labels(Vec<String>),
    /// The mean of the rows' numbers.
    Number(f64),
}

/// A test of the model against the constant answer, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConstantTest {
    /// McNemar's exact test, on rows that only one of the two has right.
    Mcnemar,
    /// The exact sign test, on the rows' numbers of wrong labels.
    Sign,
    /// The paired t-test, on the rows' squared errors.
    PairedT,
}

impl ConstantTest {
    /// The test's name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mcnemar => "McNemar's exact test",
            Self::Sign => "sign test",
            Self::PairedT => "paired t-test",
        }
    }
}

/// The conclusion about a model and the constant answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConstantVerdict {
    /// The model is significantly better.
    Better,
    /// No significant difference is shown.
    NoBetter,
    /// The model is significantly worse.
    Worse,
}

impl ConstantVerdict {
    /// The verdict of a test with the p-value `p`, if the model did better on the rows or not.
    fn of(p: Option<f64>, better: bool) -> Self {
        match p {
            Some(p) if p < SIGNIFICANT && better => Self::Better,
            Some(p) if p < SIGNIFICANT => Self::Worse,
            _ => Self::NoBetter,
        }
    }
}

impl Constant {
    /// The constant answer to rows with one class each, whose true classes are `gold` and whose
    /// predicted ones are `guess`. Both count from 0 in `names`.
    pub fn of_classes(gold: &[usize], guess: &[usize], names: &[String]) -> Self {
        let mut counts = vec![0_u64; names.len()];
        for &class in gold {
            counts.get_mut(class).into_iter().for_each(|count| *count += 1);
        }
        let largest = counts.iter().enumerate().rev().max_by_key(|(_, count)| **count);
        let largest = largest.map_or(0, |(class, _)| class);
        let wrong = |class: usize, guess: usize| u32::from(class != guess);
        let pairs = gold.iter().zip(guess);
        let pairs = pairs.map(|(&class, &guess)| (wrong(class, guess), wrong(class, largest)));
        let tested = Discordant::of_wrong(pairs);
        let (p, better) = (Some(tested.p()), tested.first_alone > tested.second_alone);
        let verdict = ConstantVerdict::of(p, better);
        // The coefficient of answers that have nothing to do with the labels has a standard
        // deviation of at most 1 / sqrt(rows).
        let matthews = classification(gold, guess, names.len()).get("matthews").copied();
        let follows = matthews.is_some_and(|found| found > 2.0 / (gold.len() as f64).sqrt());
        Self {
            answer: ConstantAnswer::Label(names.get(largest).cloned().unwrap_or_default()),
            metrics: classification(gold, &vec![largest; gold.len()], names.len()),
            test: ConstantTest::Mcnemar,
            p,
            verdict,
            learned: verdict == ConstantVerdict::Better || follows,
        }
    }

    /// The constant answer to rows with the labels `gold`, as numbers in ascending order. `counts`
    /// are of the model's answers, which have `wrong_labels` wrong labels in each row.
    pub fn of_labels(
        gold: &[&[u32]],
        counts: &MultiLabel,
        wrong_labels: &[u32],
        names: &[String],
    ) -> Self {
        let follows = counts.follows_labels();
        let mut counts = vec![0_usize; names.len()];
        for label in gold.iter().copied().flatten() {
            counts.get_mut(*label as usize).into_iter().for_each(|count| *count += 1);
        }
        let majority = counts.iter().zip(0..).filter(|(count, _)| 2 * **count > gold.len());
        let majority: Vec<u32> = majority.map(|(_, label)| label).collect();
        let mut measured = MultiLabel::new(names.len());
        gold.iter().for_each(|labels| measured.add(labels, &majority));
        let of_constant = gold.iter().map(|labels| wrong(labels, &majority));
        let tested = Discordant::of_wrong(wrong_labels.iter().copied().zip(of_constant));
        let (p, better) = (Some(tested.p()), tested.first_alone > tested.second_alone);
        let verdict = ConstantVerdict::of(p, better);
        let named = majority.iter().filter_map(|&label| names.get(label as usize).cloned());
        Self {
            answer: ConstantAnswer::Labels(named.collect()),
            metrics: measured.metrics(),
            test: ConstantTest::Sign,
            p,
            verdict,
            learned: verdict == ConstantVerdict::Better || follows,
        }
    }

    /// The constant answer to rows with the numbers `gold`, for which the model gives `guess`.
    pub fn of_numbers(gold: &[f64], guess: &[f64]) -> Self {
        let center = mean(gold.iter().copied());
        let squares = gold.iter().zip(guess);
        let squares: Vec<(f64, f64)> = squares
            .map(|(gold, guess)| ((guess - gold).powi(2), (center - gold).powi(2)))
            .collect();
        let tested = paired_t(&squares);
        let better = tested.is_some_and(|test| test.difference < 0.0);
        let p = tested.and_then(|test| test.p);
        let verdict = match tested {
            // Every row differs by the same amount, so the difference is no chance.
            Some(test) if test.p.is_none() => ConstantVerdict::of(Some(0.0), better),
            _ => ConstantVerdict::of(p, better),
        };
        let mut metrics = regression(gold, &vec![center; gold.len()]);
        metrics.retain(|name, _| name != "pearson" && name != "spearman");
        Self {
            answer: ConstantAnswer::Number(center),
            metrics,
            test: ConstantTest::PairedT,
            p,
            verdict,
            learned: verdict == ConstantVerdict::Better,
        }
    }
}
