//! How far scores are from the shares of right answers, and what brings them there.

use crate::data::Target;
use crate::models::{Task, TaskType, largest};

/// The name of the expected calibration error among the metrics.
pub const CALIBRATION_ERROR: &str = "ece";

/// The number of bins of the calibration error, all of the same width.
const BINS: usize = 15;

/// Positive rows from which a label of several has a threshold of its own.
const OWN_THRESHOLD: usize = 10;

/// The least and the greatest inverse temperature.
const INVERSE_TEMPERATURES: (f64, f64) = (0.05, 20.0);

/// Decisions with their probabilities, counted in bins.
#[derive(Debug, Clone, Default)]
pub struct Reliability {
    bins: [Bin; BINS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    count: f64,
    probabilities: f64,
    right: f64,
}

impl Reliability {
    /// Counts a row with the probabilities `scores [L]`: the most likely class of a classification,
    /// or each label of several. A number is not counted.
    pub fn count(&mut self, target: &Target, scores: &[f32]) {
        match target {
            Target::Class(class) => {
                let best = largest(scores);
                self.add(scores.get(best).copied().unwrap_or_default(), best == *class);
            }
            Target::Labels { present, .. } => {
                for (label, &score) in (0..).zip(scores) {
                    self.add(score, present.binary_search(&label).is_ok());
                }
            }
            Target::Number(_) => {}
        }
    }

    fn add(&mut self, probability: f32, is_right: bool) {
        let place = (probability * BINS as f32) as usize;
        if let Some(bin) = self.bins.get_mut(place.min(BINS - 1)) {
            bin.count += 1.0;
            bin.probabilities += f64::from(probability);
            bin.right += f64::from(u8::from(is_right));
        }
    }

    /// The expected calibration error (Guo et al., 2017): the difference of a bin's mean
    /// probability and its share of right decisions, averaged over the decisions. 0 for none.
    pub fn error(&self) -> f64 {
        let count: f64 = self.bins.iter().map(|bin| bin.count).sum();
        let differences = self.bins.iter().map(|bin| (bin.probabilities - bin.right).abs());
        differences.sum::<f64>() / count.max(1.0)
    }
}

/// The factor of the logits that makes the loss of rows least: 1 divided by the temperature of Guo
/// et al. (2017). `logits` are those of rows with `targets`, of a task of the type `task_type`.
///
/// The targets are softened as Platt (1999) does, by one row more of each answer. Rows that are all
/// predicted right would give an infinite factor otherwise.
pub fn inverse_temperature(task_type: TaskType, logits: &[Vec<f32>], targets: &[&Target]) -> f64 {
    let softened = Softened::of(targets, logits);
    let rows: Vec<(&[f32], f64)> = logits
        .iter()
        .zip(targets)
        .map(|(logits, target)| (logits.as_slice(), softened.product(target, logits)))
        .collect();
    // The loss is convex in the factor, so its slope has one zero.
    let slope = |factor: f64| -> f64 {
        rows.iter().map(|(logits, target)| expected(task_type, logits, factor) - target).sum()
    };
    let (mut low, mut high) = (INVERSE_TEMPERATURES.0.ln(), INVERSE_TEMPERATURES.1.ln());
    for _ in 0..32 {
        let middle = (low + high) / 2.0;
        if slope(middle.exp()) < 0.0 { low = middle } else { high = middle }
    }
    ((low + high) / 2.0).exp()
}

/// The sum of a row's logits, each times its probability at `factor`.
fn expected(task_type: TaskType, logits: &[f32], factor: f64) -> f64 {
    let logits = logits.iter().map(|&logit| f64::from(logit));
    if task_type == TaskType::MultiLabel {
        return logits.map(|logit| logit / (1.0 + (-factor * logit).exp())).sum();
    }
    let most = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let powers = logits.map(|logit| (logit, (factor * (logit - most)).exp()));
    let (sum, products) = powers.fold((0.0, 0.0), |(sum, products), (logit, power)| {
        (sum + power, products + logit * power)
    });
    products / sum
}

/// Targets between 0 and 1.
struct Softened {
    /// The target of what is right: of the class, or of a label that is present.
    right: f64,
    /// The target of all else.
    wrong: f64,
}

impl Softened {
    fn of(targets: &[&Target], logits: &[Vec<f32>]) -> Self {
        let outputs = logits.first().map_or(1, Vec::len) as f64;
        let rows = targets.len() as f64;
        let present = targets.iter().map(|target| match target {
            Target::Labels { present, .. } => present.len() as f64,
            _ => 0.0,
        });
        match targets.first() {
            Some(Target::Labels { .. }) => {
                let present: f64 = present.sum();
                let absent = rows * outputs - present;
                Self { right: (present + 1.0) / (present + 2.0), wrong: 1.0 / (absent + 2.0) }
            }
            _ => {
                let spread = 1.0 / (rows + 2.0);
                Self { right: 1.0 - spread, wrong: spread / (outputs - 1.0).max(1.0) }
            }
        }
    }

    /// The sum of a row's logits, each times its target.
    fn product(&self, target: &Target, logits: &[f32]) -> f64 {
        let is_right = |number: usize| match target {
            Target::Class(class) => number == *class,
            Target::Labels { present, .. } => present.binary_search(&(number as u32)).is_ok(),
            Target::Number(_) => false,
        };
        let targets = (0..logits.len()).map(|n| if is_right(n) { self.right } else { self.wrong });
        logits.iter().zip(targets).map(|(&logit, target)| f64::from(logit) * target).sum()
    }
}

/// What thresholds make best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// The share of right decisions.
    Accuracy,
    /// F1 of what is given.
    F1,
    /// The least cost of wrong decisions.
    Cost {
        /// The cost of a label that is given and wrong.
        false_positive: f64,
        /// The cost of a label that is missing.
        false_negative: f64,
    },
}

/// A decision's probability, and whether the label is present.
type Scored = (f32, bool);

/// The thresholds that are best for `objective` on rows with the probabilities `scores` and the
/// `targets`, in the form of [`Task::thresholds`].
///
/// A label of several that few of these rows have takes the threshold that is best for all labels
/// together.
pub fn thresholds(
    task: &Task,
    scores: &[Vec<f32>],
    targets: &[&Target],
    objective: Objective,
) -> Vec<f32> {
    let scored = |label: usize| -> Vec<Scored> {
        let rows = scores.iter().zip(targets);
        rows.filter_map(|(scores, target)| {
            let present = match target {
                Target::Class(class) => *class == label,
                Target::Labels { present, .. } => present.binary_search(&(label as u32)).is_ok(),
                Target::Number(_) => return None,
            };
            Some((*scores.get(label)?, present))
        })
        .collect()
    };
    if task.task_type == TaskType::Classification {
        return vec![best_threshold(scored(1), objective)];
    }
    let by_label: Vec<Vec<Scored>> = (0..task.labels.len()).map(scored).collect();
    let shared = best_threshold(by_label.concat(), objective);
    let own = |scored: Vec<Scored>| {
        let count = scored.iter().filter(|(_, present)| *present).count();
        if count < OWN_THRESHOLD { shared } else { best_threshold(scored, objective) }
    };
    by_label.into_iter().map(own).collect()
}

/// The threshold that is best for `objective`; of several, the one nearest to a half. It lies in
/// the middle of two neighbouring probabilities, so that rounding does not change a decision.
fn best_threshold(mut scored: Vec<Scored>, objective: Objective) -> f32 {
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let all = scored.iter().filter(|(_, present)| *present).count();
    let (mut given, mut hits, mut above) = (0, 0, 1.0_f32);
    let mut best: Option<(f64, f32)> = None;
    let mut consider = |threshold: f32, given: usize, hits: usize| {
        let (wrong, missing) = (given - hits, all - hits);
        let value = match objective {
            Objective::Accuracy => -((wrong + missing) as f64),
            Objective::F1 => 2.0 * hits as f64 / ((given + all) as f64).max(1.0),
            Objective::Cost { false_positive, false_negative } => {
                -(wrong as f64 * false_positive + missing as f64 * false_negative)
            }
        };
        let distance = |threshold: f32| (threshold - 0.5).abs();
        let is_better = best.is_none_or(|(known, at)| {
            value > known || (value == known && distance(threshold) < distance(at))
        });
        if is_better {
            best = Some((value, threshold));
        }
    };
    for equal in scored.chunk_by(|(a, _), (b, _)| a == b) {
        let score = equal.first().map_or(0.0, |(score, _)| *score);
        consider((above + score) / 2.0, given, hits);
        given += equal.len();
        hits += equal.iter().filter(|(_, present)| *present).count();
        above = score;
    }
    consider(above / 2.0, given, hits);
    best.map_or(0.5, |(_, threshold)| threshold)
}
