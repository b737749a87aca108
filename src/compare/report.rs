//! What was measured, gathered: `report.json`, from which the pages are made.

use super::claims::{Claim, claims};
use super::grid::{Cell, Grid};
use super::kept::{Facts, Moved};
use super::stats::{Discordant, PairedT, Spread, holm, paired_t};
use super::{Ran, best_rate, charts, html, markdown};
use crate::error::{Error, Result};
use crate::files;
use crate::train::{Evaluated, Past};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Below it, a difference is called one.
pub const SIGNIFICANT: f64 = 0.05;

/// What is written beside the runs.
pub const WRITTEN: [&str; 4] = ["plots", "report.json", "report.md", "report.html"];

/// A comparison's measurements; `report.json`. The same runs give the same ones; what times and memory decide is under `cost`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The heading.
    pub title: String,
    /// The version of bitfit that wrote it.
    pub version: &'static str,
    /// The seeds asked for.
    pub seeds: Vec<u64>,
    /// Whether rates were chosen on the first seed alone.
    pub tune: bool,
    /// The arm that others are tested against.
    pub reference: String,
    /// The arms that what is said of BitFit is measured of: the first that is BitFit, and the first that is full fine-tuning.
    pub claims_about: Vec<String>,
    /// Whether the state that a run is measured by is its best evaluation's, or else the last; none where some are either.
    pub best_state: Option<bool>,
    /// Runs that are done.
    pub runs_done: usize,
    /// Runs of the grid.
    pub runs_planned: usize,
    /// By task.
    pub tasks: Vec<TaskReport>,
    /// What is commonly said of BitFit, beside what was measured.
    pub claims: Vec<Claim>,
    /// What failed and was passed over.
    pub failures: Vec<Failure>,
}

/// A task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// Whether all arms are of the same base.
    pub same_base: bool,
    /// Whether all arms have the same rows, with each seed.
    pub same_rows: bool,
    /// The metric that it goes by.
    pub metric: String,
    /// Whether more of it is better.
    pub greater_is_better: bool,
    /// Label names.
    pub labels: Vec<String>,
    /// Of the evaluation rows with the first seed.
    pub rows_fingerprint: String,
    /// In the order of the grid, those of which a run is done.
    pub arms: Vec<ArmReport>,
}

/// An arm on a task.
#[derive(Debug, Clone, Serialize)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// Its place in the grid.
    pub place: usize,
    /// The base's name.
    pub base: String,
    /// Size of its weight file, in bytes.
    pub base_bytes: u64,
    /// Training rows.
    pub train_rows: usize,
    /// Evaluation rows.
    pub eval_rows: usize,
    /// What trained.
    pub method: String,
    /// The learning rate that everything below is about.
    pub learning_rate: f64,
    /// Every rate that was tried, in the grid's order.
    pub rates: Vec<RateReport>,
    /// The task's metric over the seeds.
    pub quality: Spread,
    /// Seed by seed.
    pub by_seed: Vec<SeedReport>,
    /// Every metric over the seeds.
    pub metrics: BTreeMap<String, Spread>,
    /// Parameters that train.
    pub trainable: u64,
    /// All parameters.
    pub all: u64,
    /// Size of the task's file, in bytes.
    pub delta_bytes: u64,
    /// What it cost.
    pub cost: Cost,
    /// Against the reference; none of the reference itself, or without it.
    pub versus: Option<Versus>,
    /// The task's metric over the steps.
    pub curve: Vec<CurvePoint>,
    /// Over all seeds: rows are true classes, columns predicted ones.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The mean change of each bias, over the seeds.
    pub moved: Vec<Moved>,
}

/// An arm at a rate.
#[derive(Debug, Clone, Serialize)]
pub struct RateReport {
    /// The rate.
    pub learning_rate: f64,
    /// The task's metric over the seeds that ran at it.
    pub quality: Spread,
}

/// An arm with a seed.
#[derive(Debug, Clone, Serialize)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// The task's metric.
    pub value: f64,
    /// The step at which it was best.
    pub best_step: Option<u64>,
}

/// What an arm cost, over the seeds.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// The middle one of each run's steps, in seconds.
    pub step_seconds: Spread,
    /// Real tokens in steps.
    pub tokens_per_second: Spread,
    /// Seconds of a whole run.
    pub seconds: Spread,
    /// Peak resident memory in MiB; none where it could not be told from that of other runs.
    pub peak_rss_mib: Option<Spread>,
    /// Peak memory of tensors on the GPU, in MiB.
    pub peak_gpu_mib: Option<Spread>,
}

/// An arm against the reference.
#[derive(Debug, Clone, Serialize)]
pub struct Versus {
    /// The mean difference of the metric over the seeds that both have, the arm less the reference.
    pub difference: f64,
    /// The paired t-test over the seeds; none of one.
    pub paired_t: Option<PairedT>,
    /// Its probability with Holm's correction over the task's arms.
    pub p: Option<f64>,
    /// McNemar's exact test, seed by seed, on the same evaluation rows.
    pub mcnemar: Vec<Mcnemar>,
    /// What may be said.
    pub verdict: Verdict,
}

/// McNemar's test of one seed.
#[derive(Debug, Clone, Serialize)]
pub struct Mcnemar {
    /// The seed.
    pub seed: u64,
    /// Rows that the arm alone has right, and rows that the reference alone has right.
    #[serde(flatten)]
    pub rows: Discordant,
    /// The probability of counts so unequal by chance.
    pub p: f64,
}

/// What may be said of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The arm is better.
    Better,
    /// The arm is worse.
    Worse,
    /// The seeds do not tell the two apart.
    NoDifferenceShown,
    /// Of one seed no winner is named.
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
    /// Its task.
    pub task: String,
    /// Its arm.
    pub arm: String,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its seed.
    pub seed: u64,
    /// Why.
    pub problem: String,
}

impl Failure {
    /// Of `cell`.
    pub fn new(grid: &Grid, cell: &Cell, problem: String) -> Self {
        Self {
            task: grid.tasks.get(cell.task).cloned().unwrap_or_default(),
            arm: grid.arms.get(cell.arm).map(|arm| arm.name.clone()).unwrap_or_default(),
            learning_rate: cell.learning_rate,
            seed: cell.seed,
            problem,
        }
    }

    /// Whether it is `cell`'s.
    pub fn is_of(&self, grid: &Grid, cell: &Cell) -> bool {
        let names = (grid.tasks.get(cell.task), grid.arms.get(cell.arm).map(|arm| &arm.name));
        names == (Some(&self.task), Some(&self.arm))
            && (self.learning_rate, self.seed) == (cell.learning_rate, cell.seed)
    }
}

impl Report {
    /// Gathers what `ran`.
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
        let best = |ran: &Ran| ran.cell.run.config.training.load_best_model_at_end;
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

    /// Writes report.json, report.md, report.html and the plots into `dir`; returns the page.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let charts = charts::all(self);
        files::replace_dir(&dir.join("plots"), |folder| {
            charts.iter().try_for_each(|chart| {
                files::write(&folder.join(format!("{}.svg", chart.name)), chart.file().as_bytes())
            })
        })?;
        let json = serde_json::to_string_pretty(self).map_err(|e| Error::Bug(e.to_string()))?;
        files::replace_with(&dir.join("report.json"), (json + "\n").as_bytes())?;
        files::replace_with(&dir.join("report.md"), markdown::page(self, &charts).as_bytes())?;
        let page = dir.join("report.html");
        files::replace_with(&page, html::page(self, &charts).as_bytes())?;
        Ok(page)
    }
}

/// Gathers an arm's runs on a task, and returns those at its chosen rate; none where none is done.
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
        // The first of equals. A rate at which some seeds failed has no mean to be compared with those of others.
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
        // A process that took the last steps of a run alone has timed few, or none.
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

/// Whether all of `runs` are alike.
fn alike(runs: &[&Ran], alike: impl Fn(&Facts, &Facts) -> bool) -> bool {
    let mut facts = runs.iter().map(|ran| &ran.finished.facts);
    facts.next().is_none_or(|first| facts.all(|other| alike(first, other)))
}

/// Whether two fingerprints are the same, as far as they are known.
fn same(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The metric after each step that a run evaluated at.
fn curve(runs: &[Ran]) -> Result<Vec<CurvePoint>> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for ran in runs {
        for Evaluated { step, metrics, .. } in
            Past::evaluations(&ran.cell.run.config.training.output_dir)?
        {
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

/// Tests each arm against the reference.
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
