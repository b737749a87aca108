//! The measurements of a comparison: `report.json`, from which the pages are made.

use super::claims::{Claim, claims};
use super::grid::{Cell, Grid};
use super::kept::{Facts, Moved};
use super::stats::{Discordant, PairedT, Spread, holm, paired_t};
use super::{Ran, best_rate, charts, html, markdown};
use crate::error::{Error, Result};
use crate::files;
use crate::train::{Evaluated, RunDir};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Significance level: differences with p below it are reported as significant.
pub const SIGNIFICANT: f64 = 0.05;

/// The names of a report's files and directories, in the grid's directory.
pub const WRITTEN: [&str; 4] = ["plots", "report.json", "report.md", "report.html"];

/// The measurements of a comparison: `report.json`. Repeating the same runs gives the same values,
/// except for time and memory, which are under `cost` and in claims marked `cost`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// The version of bitfit that wrote it.
    pub version: &'static str,
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
    pub failures: Vec<Failure>,
}

/// The report of a task.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, Serialize)]
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
    /// The chosen learning rate. All fields below except `rates` are measured at it.
    pub learning_rate: f64,
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
    pub cost: Cost,
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
#[derive(Debug, Clone, Serialize)]
pub struct RateReport {
    /// The learning rate.
    pub learning_rate: f64,
    /// The task's metric over the seeds that ran at it.
    pub quality: Spread,
}

/// The quality of an arm with one seed.
#[derive(Debug, Clone, Serialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// The task's metric.
    pub value: f64,
    /// The step after which `value` was measured.
    pub best_step: Option<u64>,
}

/// The time and memory of an arm, over the seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
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
#[derive(Debug, Clone, Serialize)]
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
    pub verdict: Verdict,
}

/// McNemar's test of one seed.
#[derive(Debug, Clone, Serialize)]
pub struct Mcnemar {
    /// The seed.
    pub seed: u64,
    /// Number of rows that only the arm predicts right, and that only the reference predicts right.
    #[serde(flatten)]
    pub rows: Discordant,
    /// The two-sided p-value.
    pub p: f64,
}

/// The conclusion about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
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

/// A point of a learning curve.
#[derive(Debug, Clone, Serialize)]
pub struct CurvePoint {
    /// The step.
    pub step: u64,
    /// The task's metric over the seeds.
    pub quality: Spread,
}

/// A run that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The task's name.
    pub task: String,
    /// The arm's name.
    pub arm: String,
    /// The learning rate.
    pub learning_rate: f64,
    /// The seed.
    pub seed: u64,
    /// The error message.
    pub problem: String,
}

impl Failure {
    /// The failure of `cell` with the error message `problem`.
    pub fn new(grid: &Grid, cell: &Cell, problem: String) -> Self {
        Self {
            task: grid.tasks.get(cell.task).cloned().unwrap_or_default(),
            arm: grid.arms.get(cell.arm).map(|arm| arm.name.clone()).unwrap_or_default(),
            learning_rate: cell.learning_rate,
            seed: cell.seed,
            problem,
        }
    }

    /// Whether the failure is that of `cell`.
    pub fn is_of(&self, grid: &Grid, cell: &Cell) -> bool {
        let names = (grid.tasks.get(cell.task), grid.arms.get(cell.arm).map(|arm| &arm.name));
        names == (Some(&self.task), Some(&self.arm))
            && (self.learning_rate, self.seed) == (cell.learning_rate, cell.seed)
    }
}

impl Report {
    /// Gathers the report from the finished runs `ran`.
    pub fn new(grid: &Grid, ran: &[Ran], failures: Vec<Failure>) -> Result<Self> {
        let mut tasks = vec![];
        for (task, name) in grid.tasks.iter().enumerate() {
            let of_task: Vec<&Ran> = ran.iter().filter(|ran| ran.cell.task == task).collect();
            let Some(first) = of_task.first() else { continue };
            let facts = &first.finished.facts;
            let mut report = TaskReport {
                name: name.clone(),
                same_base: true,
                same_rows: true,
                metric: first.cell.run.metric.name().into(),
                greater_is_better: first.cell.run.greater_is_better,
                labels: facts.labels.clone(),
                rows_fingerprint: first.finished.rows_fingerprint.clone(),
                arms: vec![],
            };
            let mut chosen = vec![];
            for (place, arm) in grid.arms.iter().enumerate() {
                let runs: Vec<Ran> =
                    of_task.iter().filter(|ran| ran.cell.arm == place).copied().cloned().collect();
                let Some((its, best)) = arm_report(grid, place, &arm.name, &runs)? else {
                    continue;
                };
                report.arms.push(its);
                chosen.push(best);
            }
            let shown: Vec<&Ran> = chosen.iter().flatten().collect();
            report.same_base = alike(&shown, |a, b| {
                (&a.base, a.base_bytes) == (&b.base, b.base_bytes)
                    && same(&a.base_fingerprint, &b.base_fingerprint)
            });
            report.same_rows = grid.seeds.iter().all(|seed| {
                let with: Vec<&Ran> =
                    shown.iter().copied().filter(|ran| ran.cell.seed == *seed).collect();
                let first = with.first().map(|ran| &ran.finished.rows_fingerprint);
                with.iter().all(|ran| Some(&ran.finished.rows_fingerprint) == first)
                    && alike(&with, |a, b| {
                        a.train_rows == b.train_rows
                            && same(&a.data_fingerprint, &b.data_fingerprint)
                    })
            });
            versus(grid.reference, &mut report, &chosen);
            tasks.push(report);
        }
        let first_of = |method: &str| {
            (0..grid.arms.len()).find_map(|arm| {
                let cell = grid.cells(0, arm).ok()?.into_iter().next()?;
                (cell.run.method.name() == method).then_some((arm, &grid.arms.get(arm)?.name))
            })
        };
        let (bitfit, full) = (first_of("bitfit"), first_of("full"));
        let about = [bitfit, full.filter(|_| bitfit.is_some())];
        let best = |ran: &Ran| ran.cell.run.training().load_best_model_at_end;
        Ok(Self {
            title: grid.title.clone(),
            version: env!("CARGO_PKG_VERSION"),
            seeds: grid.seeds.clone(),
            tune: grid.tune,
            reference: grid.arms.get(grid.reference).map(|a| a.name.clone()).unwrap_or_default(),
            runs_done: ran.len(),
            runs_planned: grid.total(),
            claims_about: about.iter().flatten().map(|(_, name)| (*name).clone()).collect(),
            best_state: ran
                .first()
                .map(best)
                .filter(|first| ran.iter().all(|ran| best(ran) == *first)),
            claims: claims(&tasks, bitfit, full),
            tasks,
            failures,
        })
    }

    /// Writes `report.json`, `report.md`, `report.html` and the plots into `dir`; returns the path
    /// of `report.html`.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let charts = charts::all(self);
        files::replace_dir(&dir.join("plots"), |folder| {
            charts.iter().try_for_each(|chart| {
                files::write(&folder.join(format!("{}.svg", chart.name)), chart.file().as_bytes())
            })
        })?;
        let json = serde_json::to_string_pretty(self).map_err(Error::bug)?;
        files::replace_with(&dir.join("report.json"), (json + "\n").as_bytes())?;
        files::replace_with(&dir.join("report.md"), markdown::page(self, &charts).as_bytes())?;
        let page = dir.join("report.html");
        files::replace_with(&page, html::page(self, &charts).as_bytes())?;
        Ok(page)
    }
}

/// The report of an arm on a task, and the runs at its chosen rate; `None` if no finished run gives
/// a rate to choose.
fn arm_report(
    grid: &Grid,
    place: usize,
    name: &str,
    runs: &[Ran],
) -> Result<Option<(ArmReport, Vec<Ran>)>> {
    let mut rates: Vec<f64> = vec![];
    for ran in runs {
        if !rates.contains(&ran.cell.learning_rate) {
            rates.push(ran.cell.learning_rate);
        }
    }
    let at = |rate: f64| runs.iter().filter(move |ran| ran.cell.learning_rate == rate);
    let values = |rate| at(rate).filter_map(Ran::value).collect::<Vec<_>>();
    let rates: Vec<RateReport> = rates
        .into_iter()
        .filter_map(|learning_rate| {
            let quality = Spread::of(&values(learning_rate))?;
            Some(RateReport { learning_rate, quality })
        })
        .collect();
    let first_seed: Vec<Ran> =
        runs.iter().filter(|ran| grid.seeds.first() == Some(&ran.cell.seed)).cloned().collect();
    let greater = runs.first().is_some_and(|ran| ran.cell.run.greater_is_better);
    let chosen = if grid.tunes(place) {
        best_rate(&first_seed)
    } else {
        // Takes the first of ties. A rate at which some seeds failed is left out: its mean is over
        // fewer seeds than that of the others.
        let sign = if greater { 1.0 } else { -1.0 };
        let score = |rate: &RateReport| sign * rate.quality.mean;
        let most = rates.iter().map(|rate| rate.quality.n).max();
        rates
            .iter()
            .rev()
            .filter(|rate| Some(rate.quality.n) == most)
            .max_by(|a, b| score(a).total_cmp(&score(b)))
            .map(|rate| rate.learning_rate)
    };
    let Some(learning_rate) = chosen else { return Ok(None) };
    let chosen: Vec<Ran> = at(learning_rate).cloned().collect();
    let (Some(first), Some(quality)) = (chosen.first(), Spread::of(&values(learning_rate))) else {
        return Ok(None);
    };
    let over = |value: &dyn Fn(&Ran) -> Option<f64>| {
        Spread::of(&chosen.iter().filter_map(value).collect::<Vec<_>>())
    };
    let needed = |value: &dyn Fn(&Ran) -> f64| {
        over(&|ran| Some(value(ran))).ok_or_else(|| Error::Bug("an arm without runs".into()))
    };
    let names = first.summary.best.keys();
    let metrics = names
        .filter_map(|name| Some((name.clone(), over(&|ran| ran.summary.best.get(name).copied())?)));
    let cost = Cost {
        // The median is over the steps of the run's last process, which may have taken few or none.
        step_seconds: needed(&|ran| match ran.finished.memory_is_its_own {
            true => ran.summary.median_step_seconds,
            false => ran.summary.seconds_in_steps / ran.summary.steps.max(1) as f64,
        })?,
        tokens_per_second: needed(&|ran| ran.summary.tokens_per_second)?,
        seconds: needed(&|ran| ran.summary.seconds_in_all)?,
        peak_rss_mib: over(&|ran| {
            let own = ran.finished.memory_is_its_own && ran.summary.peak_rss_mib > 0;
            own.then_some(ran.summary.peak_rss_mib as f64)
        }),
        peak_gpu_mib: over(&|ran| ran.summary.peak_gpu_mib.map(|mib| mib as f64)),
    };
    let report = ArmReport {
        name: name.into(),
        place,
        base: first.finished.facts.base.clone(),
        base_bytes: first.finished.facts.base_bytes,
        train_rows: first.finished.facts.train_rows,
        eval_rows: first.finished.facts.eval_rows,
        method: first.summary.method.clone(),
        learning_rate,
        rates,
        quality,
        by_seed: chosen
            .iter()
            .filter_map(|ran| {
                let (seed, best_step) = (ran.cell.seed, ran.summary.best_step);
                Some(SeedReport { seed, value: ran.value()?, best_step })
            })
            .collect(),
        metrics: metrics.collect(),
        trainable: first.summary.trainable,
        all: first.summary.all,
        delta_bytes: first.finished.delta_bytes,
        cost,
        versus: None,
        curve: curve(&chosen)?,
        confusion: confusion(&chosen),
        moved: moved(&chosen),
    };
    Ok(Some((report, chosen)))
}

/// Whether the facts of the first of `runs` are `alike` to those of each other run.
fn alike(runs: &[&Ran], alike: impl Fn(&Facts, &Facts) -> bool) -> bool {
    let mut facts = runs.iter().map(|ran| &ran.finished.facts);
    facts.next().is_none_or(|first| facts.all(|other| alike(first, other)))
}

/// Whether two fingerprints are equal. An unknown fingerprint counts as equal to any.
fn same(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The metric over the runs, at each step at which a run was evaluated.
fn curve(runs: &[Ran]) -> Result<Vec<CurvePoint>> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for ran in runs {
        for Evaluated { step, metrics, .. } in RunDir::evaluations(ran.cell.run.output_dir())? {
            let value = metrics.get(ran.cell.run.metric.name());
            by_step.entry(step).or_default().extend(value);
        }
    }
    let point =
        |(step, values): (u64, Vec<f64>)| Some(CurvePoint { step, quality: Spread::of(&values)? });
    Ok(by_step.into_iter().filter_map(point).collect())
}

fn confusion(runs: &[Ran]) -> Option<Vec<Vec<u64>>> {
    let mut sum: Option<Vec<Vec<u64>>> = None;
    for ran in runs {
        let counts = ran.finished.confusion.as_ref()?;
        match &mut sum {
            None => sum = Some(counts.clone()),
            Some(sum) => {
                for (cell, count) in sum.iter_mut().flatten().zip(counts.iter().flatten()) {
                    *cell += count;
                }
            }
        }
    }
    sum
}

fn moved(runs: &[Ran]) -> Vec<Moved> {
    let mut by_place = BTreeMap::new();
    for Moved { term, layer, mean } in runs.iter().flat_map(|ran| &ran.finished.moved) {
        by_place.entry((*layer, *term)).or_insert_with(Vec::new).push(*mean);
    }
    let mean = |((layer, term), values): (_, Vec<f64>)| {
        Some(Moved { term, layer, mean: Spread::of(&values)?.mean })
    };
    by_place.into_iter().filter_map(mean).collect()
}

/// Tests each arm against the reference, and corrects the p-values.
fn versus(reference: usize, task: &mut TaskReport, chosen: &[Vec<Ran>]) {
    let Some(at) = task.arms.iter().position(|arm| arm.place == reference) else { return };
    let Some(base) = chosen.get(at) else { return };
    let greater = task.greater_is_better;
    for (arm, runs) in task.arms.iter_mut().zip(chosen) {
        if arm.place != reference {
            arm.versus = against(base, runs);
        }
    }
    let tested: Vec<f64> =
        task.arms.iter().filter_map(|arm| arm.versus.as_ref()?.paired_t.as_ref()?.p).collect();
    let mut corrected = holm(&tested).into_iter();
    for versus in task.arms.iter_mut().filter_map(|arm| arm.versus.as_mut()) {
        let Some(test) = &versus.paired_t else { continue };
        versus.p = test.p.and_then(|_| corrected.next());
        versus.verdict = match versus.p {
            Some(p) if p < SIGNIFICANT && (test.difference > 0.0) == greater => Verdict::Better,
            Some(p) if p < SIGNIFICANT => Verdict::Worse,
            _ => Verdict::NoDifferenceShown,
        };
    }
}

fn against(base: &[Ran], runs: &[Ran]) -> Option<Versus> {
    let (mut pairs, mut mcnemar, mut other_rows) = (vec![], vec![], false);
    for ran in runs {
        let Some(other) = base.iter().find(|other| other.cell.seed == ran.cell.seed) else {
            continue;
        };
        pairs.push((ran.value()?, other.value()?));
        let same = ran.finished.rows_fingerprint == other.finished.rows_fingerprint;
        other_rows |= !same;
        let right = |ran: &Ran| -> Option<Vec<bool>> {
            Some(ran.finished.right.as_ref()?.bytes().map(|byte| byte == b'1').collect())
        };
        if let (true, Some(a), Some(b)) = (same, right(ran), right(other))
            && let Some(rows) = Discordant::of(&a, &b)
        {
            mcnemar.push(Mcnemar { seed: ran.cell.seed, rows, p: rows.p() });
        }
    }
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let difference = Spread::of(&differences)?.mean;
    if other_rows {
        let verdict = Verdict::OtherRows;
        return Some(Versus { difference, paired_t: None, p: None, mcnemar, verdict });
    }
    let paired_t = paired_t(&pairs);
    Some(Versus { difference, paired_t, p: None, mcnemar, verdict: Verdict::OneSeed })
}
