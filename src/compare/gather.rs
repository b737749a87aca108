//! From the results of a grid's runs to the report.

use super::claims::claims;
use super::grid::Grid;
use super::record::RunFacts;
use super::report::{
    ArmCost, ArmReport, ArmVerdict, BesideConstant, CompareReport, CurvePoint, FailedRun, Mcnemar,
    Moved, RateReport, SeedReport, TaskReport, Versus,
};
use super::results::{CellResult, best_rate};
use crate::error::{Error, Result};
use crate::stats::{Discordant, SIGNIFICANT, Spread, holm, paired_t};
use crate::train::{Evaluated, RunDir};
use std::collections::BTreeMap;

/// The report on the finished runs `results` and the failed runs `failures`.
pub fn report(
    grid: &Grid,
    results: &[CellResult],
    failures: Vec<FailedRun>,
) -> Result<CompareReport> {
    let mut tasks = vec![];
    for (task, name) in grid.tasks.iter().enumerate() {
        let of_task: Vec<&CellResult> =
            results.iter().filter(|result| result.cell.task == task).collect();
        tasks.extend(task_report(grid, name, &of_task)?);
    }
    let best_state = |result: &CellResult| result.cell.run.training().keeps_best();
    let first = results.first().map(best_state);
    let claims_about = claims_about(grid);
    Ok(CompareReport {
        title: grid.title.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        seeds: grid.seeds.clone(),
        tune: grid.tune,
        reference: grid.arms.get(grid.reference).map(|arm| arm.name.clone()).unwrap_or_default(),
        runs_done: results.len(),
        runs_planned: grid.total(),
        best_state: first.filter(|first| results.iter().all(|other| best_state(other) == *first)),
        claims: claims(&tasks, &claims_about),
        claims_about,
        tasks,
        failures,
    })
}

/// The names of the first BitFit arm and the first arm of full fine-tuning; none without a BitFit
/// arm.
fn claims_about(grid: &Grid) -> Vec<String> {
    let first_of = |method: &str| {
        (0..grid.arms.len()).find_map(|arm| {
            let cell = grid.cells(0, arm).ok()?.into_iter().next()?;
            let arm = grid.arms.get(arm).filter(|_| cell.run.method.name() == method)?;
            Some(arm.name.clone())
        })
    };
    let Some(bitfit) = first_of("bitfit") else { return vec![] };
    [Some(bitfit), first_of("full")].into_iter().flatten().collect()
}

/// The report of the task `name`; `None` if no run of it is done.
fn task_report(grid: &Grid, name: &str, results: &[&CellResult]) -> Result<Option<TaskReport>> {
    let Some(first) = results.first() else { return Ok(None) };
    let (mut arms, mut chosen) = (vec![], vec![]);
    for (place, arm) in grid.arms.iter().enumerate() {
        let of_arm: Vec<&CellResult> =
            results.iter().filter(|result| result.cell.arm == place).copied().collect();
        if let Some((report, at_best)) = arm_report(grid, place, &arm.name, &of_arm)? {
            arms.push(report);
            chosen.push(at_best);
        }
    }
    let shown: Vec<&CellResult> = chosen.iter().flatten().copied().collect();
    let greater_is_better = first.cell.run.greater_is_better;
    compare_with_reference(grid.reference, greater_is_better, &mut arms, &chosen);
    Ok(Some(TaskReport {
        name: name.into(),
        same_base: same_base(&shown),
        same_rows: grid.seeds.iter().all(|seed| same_rows(&shown, *seed)),
        metric: first.cell.run.metric.name().into(),
        greater_is_better,
        labels: first.measured.facts.labels.clone(),
        rows_fingerprint: first.measured.rows_fingerprint.clone(),
        arms,
    }))
}

fn same_base(results: &[&CellResult]) -> bool {
    alike(results, |a, b| {
        (&a.base, a.base_bytes) == (&b.base, b.base_bytes)
            && same(&a.base_fingerprint, &b.base_fingerprint)
    })
}

/// Whether the results of one seed are of the same training and evaluation rows.
fn same_rows(results: &[&CellResult], seed: u64) -> bool {
    let of_seed: Vec<&CellResult> =
        results.iter().filter(|result| result.cell.seed == seed).copied().collect();
    let first = of_seed.first().map(|result| &result.measured.rows_fingerprint);
    of_seed.iter().all(|result| Some(&result.measured.rows_fingerprint) == first)
        && alike(&of_seed, |a, b| {
            a.train_rows == b.train_rows && same(&a.data_fingerprint, &b.data_fingerprint)
        })
}

/// Whether the facts of the first of `results` are `alike` to those of each other result.
fn alike(results: &[&CellResult], alike: impl Fn(&RunFacts, &RunFacts) -> bool) -> bool {
    let mut facts = results.iter().map(|result| &result.measured.facts);
    facts.next().is_none_or(|first| facts.all(|other| alike(first, other)))
}

/// Whether two fingerprints are equal. An unknown fingerprint counts as equal to any.
fn same(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The spread of `value` over those results that have it; `None` if no result has it.
fn spread<'a>(
    results: impl IntoIterator<Item = &'a &'a CellResult>,
    value: impl Fn(&CellResult) -> Option<f64>,
) -> Option<Spread> {
    let values: Vec<f64> = results.into_iter().filter_map(|result| value(result)).collect();
    Spread::of(&values)
}

/// The report of an arm on a task, and the results at its chosen rate; `None` if no finished run
/// gives a rate to choose.
fn arm_report<'a>(
    grid: &Grid,
    place: usize,
    name: &str,
    results: &[&'a CellResult],
) -> Result<Option<(ArmReport, Vec<&'a CellResult>)>> {
    let rates = rates(results);
    let Some(learning_rate) = chosen_rate(grid, place, results, &rates) else { return Ok(None) };
    let chosen: Vec<&CellResult> = results
        .iter()
        .filter(|result| result.cell.learning_rate == learning_rate)
        .copied()
        .collect();
    let (Some(first), Some(quality)) = (chosen.first(), spread(&chosen, CellResult::value)) else {
        return Ok(None);
    };
    let (facts, summary) = (&first.measured.facts, &first.summary);
    let metrics = summary.best.keys().filter_map(|name| {
        Some((name.clone(), spread(&chosen, |result| result.summary.best.get(name).copied())?))
    });
    let report = ArmReport {
        name: name.into(),
        place,
        base: facts.base.clone(),
        base_bytes: facts.base_bytes,
        train_rows: facts.train_rows,
        eval_rows: facts.eval_rows,
        method: summary.method.clone(),
        learning_rate,
        rates,
        quality,
        by_seed: chosen.iter().filter_map(|result| seed_report(result)).collect(),
        metrics: metrics.collect(),
        trainable: summary.trainable,
        all: summary.all,
        delta_bytes: first.measured.delta_bytes,
        cost: cost(&chosen)?,
        versus: None,
        curve: curve(&chosen)?,
        confusion: confusion(&chosen),
        moved: moved(&chosen),
    };
    Ok(Some((report, chosen)))
}

/// The report of a run; `None` if its summary lacks the task's metric.
fn seed_report(result: &CellResult) -> Option<SeedReport> {
    let (run, summary) = (&result.cell.run, &result.summary);
    let constant = summary.constant.as_ref().map(|found| BesideConstant {
        value: found.metrics.get(run.metric.name()).copied(),
        p: found.p,
        verdict: found.verdict,
        learned: found.learned,
    });
    let (seed, best_step) = (result.cell.seed, summary.best_step);
    Some(SeedReport { seed, value: result.value()?, best_step, constant })
}

/// The metric at each learning rate, in the order of the results.
fn rates(results: &[&CellResult]) -> Vec<RateReport> {
    let mut rates: Vec<Option<f64>> = vec![];
    for result in results {
        if !rates.contains(&result.cell.learning_rate) {
            rates.push(result.cell.learning_rate);
        }
    }
    let report = |learning_rate| {
        let at = results.iter().filter(|result| result.cell.learning_rate == learning_rate);
        Some(RateReport { learning_rate, quality: spread(at, CellResult::value)? })
    };
    rates.into_iter().filter_map(report).collect()
}

/// The learning rate at which an arm is reported; `Some(None)` if its method takes no steps.
fn chosen_rate(
    grid: &Grid,
    place: usize,
    results: &[&CellResult],
    rates: &[RateReport],
) -> Option<Option<f64>> {
    if grid.tunes(place) {
        let first_seed = |result: &&CellResult| grid.seeds.first() == Some(&result.cell.seed);
        return best_rate(results.iter().copied().filter(first_seed));
    }
    // Takes the first of ties. A rate at which some seeds failed is left out: its mean is over
    // fewer seeds than that of the others.
    let greater = results.first().is_some_and(|result| result.cell.run.greater_is_better);
    let sign = if greater { 1.0 } else { -1.0 };
    let score = |rate: &RateReport| sign * rate.quality.mean;
    let most = rates.iter().map(|rate| rate.quality.n).max();
    let of_most_seeds = rates.iter().rev().filter(|rate| Some(rate.quality.n) == most);
    of_most_seeds.max_by(|a, b| score(a).total_cmp(&score(b))).map(|rate| rate.learning_rate)
}

fn cost(results: &[&CellResult]) -> Result<ArmCost> {
    let needed = |value: &dyn Fn(&CellResult) -> f64| {
        spread(results, |result| Some(value(result)))
            .ok_or_else(|| Error::Bug("an arm without runs".into()))
    };
    Ok(ArmCost {
        // The median is over the steps of the run's last process, which may have taken few or none.
        step_seconds: needed(&|result| match result.measured.memory_is_its_own {
            true => result.summary.median_step_seconds,
            false => result.summary.seconds_in_steps / result.summary.steps.max(1) as f64,
        })?,
        tokens_per_second: needed(&|result| result.summary.tokens_per_second)?,
        seconds: needed(&|result| result.summary.seconds_in_all)?,
        peak_rss_mib: spread(results, |result| {
            let own = result.measured.memory_is_its_own && result.summary.peak_rss_mib > 0;
            own.then_some(result.summary.peak_rss_mib as f64)
        }),
        peak_gpu_mib: spread(results, |result| result.summary.peak_gpu_mib.map(|mib| mib as f64)),
    })
}

/// The metric over the runs, at each step at which a run was evaluated.
fn curve(results: &[&CellResult]) -> Result<Vec<CurvePoint>> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for result in results {
        let run = &result.cell.run;
        for Evaluated { step, metrics, .. } in RunDir::evaluations(run.output_dir())? {
            by_step.entry(step).or_default().extend(metrics.get(run.metric.name()));
        }
    }
    let point =
        |(step, values): (u64, Vec<f64>)| Some(CurvePoint { step, quality: Spread::of(&values)? });
    Ok(by_step.into_iter().filter_map(point).collect())
}

fn confusion(results: &[&CellResult]) -> Option<Vec<Vec<u64>>> {
    let mut sum: Option<Vec<Vec<u64>>> = None;
    for result in results {
        let counts = result.measured.confusion.as_ref()?;
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

fn moved(results: &[&CellResult]) -> Vec<Moved> {
    let mut by_place = BTreeMap::new();
    for Moved { term, layer, mean } in results.iter().flat_map(|result| &result.measured.moved) {
        by_place.entry((*layer, *term)).or_insert_with(Vec::new).push(*mean);
    }
    let mean = |((layer, term), values): (_, Vec<f64>)| {
        Some(Moved { term, layer, mean: Spread::of(&values)?.mean })
    };
    by_place.into_iter().filter_map(mean).collect()
}

/// Tests each arm against the reference, and corrects the p-values. `chosen` are the results of
/// each of `arms`.
fn compare_with_reference(
    reference: usize,
    greater_is_better: bool,
    arms: &mut [ArmReport],
    chosen: &[Vec<&CellResult>],
) {
    let Some(at) = arms.iter().position(|arm| arm.place == reference) else { return };
    let Some(base) = chosen.get(at) else { return };
    for (arm, results) in arms.iter_mut().zip(chosen) {
        if arm.place != reference {
            arm.versus = versus(base, results);
        }
    }
    let tested: Vec<f64> =
        arms.iter().filter_map(|arm| arm.versus.as_ref()?.paired_t.as_ref()?.p).collect();
    let mut corrected = holm(&tested).into_iter();
    for versus in arms.iter_mut().filter_map(|arm| arm.versus.as_mut()) {
        let Some(test) = &versus.paired_t else { continue };
        let better = (test.difference > 0.0) == greater_is_better;
        versus.p = test.p.and_then(|_| corrected.next());
        versus.verdict = match versus.p {
            Some(p) if p < SIGNIFICANT && better => ArmVerdict::Better,
            Some(p) if p < SIGNIFICANT => ArmVerdict::Worse,
            _ => ArmVerdict::NoDifferenceShown,
        };
    }
}

/// The tests of an arm against the reference arm, seed by seed, with uncorrected p-values; `None`
/// if the two have no seed in common.
fn versus(base: &[&CellResult], results: &[&CellResult]) -> Option<Versus> {
    let (mut pairs, mut mcnemar, mut other_rows) = (vec![], vec![], false);
    for result in results {
        let seed = result.cell.seed;
        let Some(other) = base.iter().find(|other| other.cell.seed == seed) else { continue };
        pairs.push((result.value()?, other.value()?));
        let same = result.measured.rows_fingerprint == other.measured.rows_fingerprint;
        other_rows |= !same;
        let right = |result: &CellResult| -> Option<Vec<bool>> {
            Some(result.measured.right.as_ref()?.bytes().map(|byte| byte == b'1').collect())
        };
        if let (true, Some(a), Some(b)) = (same, right(result), right(other))
            && let Some(rows) = Discordant::of(&a, &b)
        {
            let Discordant { first_alone, second_alone } = rows;
            mcnemar.push(Mcnemar { seed, first_alone, second_alone, p: rows.p() });
        }
    }
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    let difference = Spread::of(&differences)?.mean;
    let (paired_t, verdict) = match other_rows {
        true => (None, ArmVerdict::OtherRows),
        false => (paired_t(&pairs), ArmVerdict::OneSeed),
    };
    Some(Versus { difference, paired_t, p: None, mcnemar, verdict })
}
