//! The contents of `report.json`: what a comparison measured.

use crate::eval::ConstantVerdict;
use crate::models::Term;
use crate::stats::{PairedT, Spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The measurements of a comparison: `report.json`. Repeating the same runs gives the same values,
/// except for time and memory, which are under `cost` and in claims marked `cost`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareReport {
    /// The heading.
    pub title: String,
    /// The version of bitfit that measured.
    pub version: String,
    /// The configured seeds.
    pub seeds: Vec<u64>,
    /// Whether learning rates were chosen on the first seed alone.
    pub tune: bool,
    /// Name of the arm that the others are tested against.
    pub reference: String,
    /// Names of the arms that the claims about BitFit are measured on: the first BitFit arm, and
    /// the first arm of full fine-tuning.
    pub claims_about: Vec<String>,
    /// Whether each run is measured at its best evaluation (`load_best_model_at_end`) or else at
    /// its last; `None` if the runs differ or none is done.
    pub best_state: Option<bool>,
    /// Number of finished runs.
    pub runs_done: usize,
    /// Number of runs of the grid.
    pub runs_planned: usize,
    /// The tasks that have a finished run.
    pub tasks: Vec<TaskReport>,
    /// Common claims about BitFit, beside what was measured.
    pub claims: Vec<Claim>,
    /// Runs that failed and were skipped.
    pub failures: Vec<FailedRun>,
}

/// The report of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// The task's name.
    pub name: String,
    /// Whether all arms use the same base.
    pub same_base: bool,
    /// Whether all arms have the same rows for each seed.
    pub same_rows: bool,
    /// Name of the task's metric.
    pub metric: String,
    /// Whether greater values of the metric are better.
    pub greater_is_better: bool,
    /// Label names.
    pub labels: Vec<String>,
    /// Fingerprint of the evaluation rows of the first finished run.
    pub rows_fingerprint: String,
    /// The arms that have a finished run, in the order of the grid.
    pub arms: Vec<ArmReport>,
}

/// The report of an arm on a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmReport {
    /// The arm's name.
    pub name: String,
    /// The arm's index in the grid.
    pub place: usize,
    /// The base's name.
    pub base: String,
    /// Size of the base's weight file, in bytes.
    pub base_bytes: u64,
    /// Number of training rows.
    pub train_rows: usize,
    /// Number of evaluation rows.
    pub eval_rows: usize,
    /// The training method, such as `bitfit` or `full`.
    pub method: String,
    /// The chosen learning rate, at which all fields below except `rates` are measured; `None` if
    /// the method takes no steps.
    pub learning_rate: Option<f64>,
    /// The metric at every learning rate that was tried, in the grid's order.
    pub rates: Vec<RateReport>,
    /// The task's metric over the seeds.
    pub quality: Spread,
    /// The task's metric of each seed.
    pub by_seed: Vec<SeedReport>,
    /// Every metric over the seeds.
    pub metrics: BTreeMap<String, Spread>,
    /// Number of trainable parameters.
    pub trainable: u64,
    /// Number of all parameters.
    pub all: u64,
    /// Size of the task's delta file, in bytes.
    pub delta_bytes: u64,
    /// Time and memory.
    pub cost: ArmCost,
    /// The comparison with the reference arm; `None` for the reference itself, and if the two have
    /// no seed in common.
    pub versus: Option<Versus>,
    /// The task's metric over the seeds, at each step with an evaluation.
    pub curve: Vec<CurvePoint>,
    /// Confusion matrix, summed over the seeds: rows are true classes, columns predicted ones.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The mean change of each bias, averaged over the seeds.
    pub moved: Vec<Moved>,
}

/// The quality of an arm at one learning rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateReport {
    /// The learning rate; `None` if the method takes no steps.
    pub learning_rate: Option<f64>,
    /// The task's metric over the seeds that ran at it.
    pub quality: Spread,
}

/// The quality of an arm with one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// The task's metric.
    pub value: f64,
    /// The step after which `value` was measured.
    pub best_step: Option<u64>,
    /// The constant answer on the same evaluation rows; `None` in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<BesideConstant>,
}

/// The constant answer on the evaluation rows of a run, and the run's model beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BesideConstant {
    /// The task's metric of the constant answer; `None` for a correlation.
    pub value: Option<f64>,
    /// The p-value of the test of the model against the constant answer.
    pub p: Option<f64>,
    /// The test's conclusion.
    pub verdict: ConstantVerdict,
    /// Whether the model has learned, as in `summary.json`.
    pub learned: bool,
}

/// The time and memory of an arm, over the seeds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmCost {
    /// Seconds per step: a run's median, or its mean if the process that finished it trained other
    /// runs or took few of its steps.
    pub step_seconds: Spread,
    /// Tokens per second of step time. Batches have no padding.
    pub tokens_per_second: Spread,
    /// Seconds that a whole run took.
    pub seconds: Spread,
    /// Peak resident memory in MiB; `None` if it could not be measured apart from other runs.
    pub peak_rss_mib: Option<Spread>,
    /// Peak memory of tensors on the GPU, in MiB; `None` without a GPU.
    pub peak_gpu_mib: Option<Spread>,
}

/// The comparison of an arm with the reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versus {
    /// The arm's metric minus the reference's, averaged over the common seeds.
    pub difference: f64,
    /// The paired t-test over the seeds; `None` with fewer than two common seeds, or with other
    /// rows.
    pub paired_t: Option<PairedT>,
    /// The p-value of `paired_t`, with Holm's correction over the task's arms.
    pub p: Option<f64>,
    /// McNemar's exact test for each seed with the same evaluation rows.
    pub mcnemar: Vec<Mcnemar>,
    /// The conclusion.
    pub verdict: ArmVerdict,
}

/// McNemar's test of one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mcnemar {
    /// The seed.
    pub seed: u64,
    /// Number of rows that only the arm predicts right.
    pub first_alone: u64,
    /// Number of rows that only the reference predicts right.
    pub second_alone: u64,
    /// The two-sided p-value.
    pub p: f64,
}

/// The conclusion about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmVerdict {
    /// The arm is better.
    Better,
    /// The arm is worse.
    Worse,
    /// The test shows no significant difference, or has no p-value.
    NoDifferenceShown,
    /// The arms have only one seed in common, so no test is possible.
    OneSeed,
    /// The two were evaluated on different rows.
    OtherRows,
}

/// The mean change of a bias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// The bias's place in a layer.
    pub term: Term,
    /// The layer, counted from 0; `None` for the embeddings' LayerNorm.
    pub layer: Option<usize>,
    /// The mean of |after - before| over the bias's entries.
    pub mean: f64,
}

/// A point of a learning curve.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// The step.
    pub step: u64,
    /// The task's metric over the seeds.
    pub quality: Spread,
}

/// A common claim about BitFit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The claim's text.
    pub claim: String,
    /// Whether the claim is about time or memory, which differ when the same run is repeated.
    pub cost: bool,
    /// The measurement on each task.
    pub measured: Vec<Measured>,
}

/// The measurement of a claim on one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The measurement in words.
    pub text: String,
    /// The measured ratio or share; `None` if it could not be measured.
    pub value: Option<f64>,
    /// Whether the claim holds; `None` if the measurement does not decide it.
    pub holds: Option<bool>,
}

/// A run that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedRun {
    /// The task's name.
    pub task: String,
    /// The arm's name.
    pub arm: String,
    /// The learning rate; `None` if the method takes no steps.
    pub learning_rate: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// The error message.
    pub problem: String,
}
