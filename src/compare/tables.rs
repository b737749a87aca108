//! The report's tables and sentences, the same in Markdown and HTML.

use super::format::{
    bytes, digits, percent, probability, rate_name, rate_or_dash, seconds, signed, spread, with,
};
use super::report::{
    ArmReport, ArmVerdict, BesideConstant, Claim, CompareReport, TaskReport, Versus,
};
use crate::eval::ConstantVerdict;
use crate::numbers::thousands;
use crate::stats::{SIGNIFICANT, Spread};
use std::collections::BTreeMap;

/// The name of the row of the constant answer.
const CONSTANT: &str = "constant answer";

/// A table whose cells are text.
pub struct ReportTable {
    /// The columns' names.
    pub head: Vec<String>,
    /// The rows; the first cell of each is the row's name.
    pub rows: Vec<Vec<TableCell>>,
}

/// A cell of a table.
pub struct TableCell {
    /// The text, without the verdict.
    text: String,
    /// Whether the claim that the cell is about holds; `None` for a cell without a verdict.
    pub holds: Option<bool>,
}

impl ReportTable {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: vec![] }
    }

    /// Adds a row of cells without a verdict.
    pub fn push(&mut self, row: Vec<String>) {
        let cell = |text| TableCell { text, holds: None };
        self.rows.push(row.into_iter().map(cell).collect());
    }

    /// The table, unless it has no row.
    pub fn unless_empty(self) -> Option<Self> {
        (!self.rows.is_empty()).then_some(self)
    }
}

impl TableCell {
    /// The text, followed by the verdict if there is one.
    pub fn shown(&self) -> String {
        match self.holds {
            Some(true) => format!("{}: holds", self.text),
            Some(false) => format!("{}: does not hold", self.text),
            None => self.text.clone(),
        }
    }
}

/// A summary of the report, in a few sentences.
pub fn summary(report: &CompareReport) -> Vec<String> {
    let mut out = vec![];
    let (arms, tasks) =
        (report.tasks.iter().map(|task| task.arms.len()).max().unwrap_or(0), report.tasks.len());
    let seeds = report.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let count =
        |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    out.push(format!(
        "{} compared on {} with {} ({seeds}).",
        count(arms, "arm"),
        count(tasks, "task"),
        count(report.seeds.len(), "seed")
    ));
    if report.runs_done < report.runs_planned {
        out.push(format!(
            "Incomplete: {} of {} runs are done, {} failed.",
            report.runs_done,
            report.runs_planned,
            report.failures.len()
        ));
    }
    out.push(if report.tune {
        "For all its seeds, an arm with several learning rates uses the rate that was best on the first seed. This makes its result on the first seed slightly optimistic.".into()
    } else {
        "An arm with several learning rates is shown at the rate with the best mean over its seeds.".into()
    });
    if report.seeds.len() < 2 {
        out.push(
            "With one seed, no arm is called better: another seed could reverse the order.".into(),
        );
    }
    out
}

/// Notes on how the measurements were made.
pub fn notes(report: &CompareReport) -> Vec<String> {
    let mut notes = vec![
        format!("{} All methods use the same packed kernels.", conditions(report)),
        "A value with ± is the mean over the seeds and the sample standard deviation (n − 1).".into(),
        format!(
            "Differences are the arm's metric minus {}'s, on the same seeds. p is from a paired t-test over the seeds, with Holm's correction over the task's arms; differences with p < {SIGNIFICANT} are reported as significant. \
             McNemar's exact test asks, for each seed, whether the two arms are right on different evaluation rows. It says nothing about other seeds, so no verdict rests on it.",
            report.reference
        ),
        quality(report).into(),
        "Seconds per step are the median over a run's steps. Peak memory is that of a process with this run alone, including the base and the rows.".into(),
        "Parameter counts and file sizes include the new head.".into(),
    ];
    let of_arms = report.tasks.iter().flat_map(|task| &task.arms);
    if of_arms.flat_map(|arm| &arm.by_seed).any(|seed| seed.constant.is_some()) {
        notes.push(format!(
            "The constant answer is the largest class, the mean number, or the labels of more than half of the rows, taken from the evaluation rows themselves. An arm is better with a seed if a test over the rows shows it with p < {SIGNIFICANT}: McNemar's exact test, the paired t-test on squared errors, or the sign test on wrong labels."
        ));
    }
    notes.extend(match &report.claims_about[..] {
        [] => None,
        [bitfit] => Some(format!("Claims about BitFit are measured on the arm {bitfit}.")),
        [bitfit, full, ..] => Some(format!(
            "Claims about BitFit are measured on the arms {bitfit} and {full}. Shares of quality are computed seed by seed; a paired t-test decides whether they differ from 95 %."
        )),
    });
    notes
}

/// What the runs of a task have in common, in a sentence.
fn conditions(report: &CompareReport) -> &'static str {
    let all = |same: fn(&TaskReport) -> bool| report.tasks.iter().all(same);
    match (all(|task| task.same_base), all(|task| task.same_rows)) {
        (true, true) => {
            "All runs of a task use the same base. With the same seed, they also use the same rows in the same order and the same initial head."
        }
        (false, true) => {
            "The arms of a task use different bases. With the same seed, they use the same rows in the same order."
        }
        (true, false) => "All runs of a task use the same base, but its arms use different rows.",
        (false, false) => "The arms of a task use different bases and different rows.",
    }
}

/// The evaluation that quality is measured by, in a sentence.
fn quality(report: &CompareReport) -> &'static str {
    match report.best_state {
        Some(true) => {
            "Quality is each run's best evaluation. Selection makes this optimistic, the more so the more learning rates an arm tried; expect slightly lower values on held-out data."
        }
        Some(false) => {
            "Quality is each run's last evaluation. Where an arm tried several learning rates, selection makes this optimistic; expect slightly lower values on held-out data."
        }
        None => {
            "Quality is each run's best evaluation, or its last where load_best_model_at_end is false."
        }
    }
}

/// The claims about BitFit beside what was measured; `None` without tasks or claims.
pub fn claims(report: &CompareReport) -> Option<ReportTable> {
    if report.tasks.is_empty() {
        return None;
    }
    let mut head = vec!["claim about BitFit".to_owned()];
    head.extend(match &report.tasks[..] {
        [_] => vec!["measured".to_owned()],
        tasks => tasks.iter().map(|task| format!("measured: {}", task.name)).collect(),
    });
    let row = |claim: &Claim| {
        let first = TableCell { text: claim.claim.clone(), holds: None };
        let measured = claim.measured.iter();
        let measured = measured.map(|its| TableCell { text: its.text.clone(), holds: its.holds });
        [first].into_iter().chain(measured).collect()
    };
    ReportTable { head, rows: report.claims.iter().map(row).collect() }.unless_empty()
}

/// The metric of every arm on every task; `None` for fewer than two tasks.
pub fn by_task(report: &CompareReport) -> Option<ReportTable> {
    if report.tasks.len() < 2 {
        return None;
    }
    let mut table = ReportTable::new(&["arm"]);
    table.head.extend(report.tasks.iter().map(|task| format!("{} ({})", task.name, task.metric)));
    let same_way = report.tasks.iter().all(|task| task.greater_is_better);
    if same_way {
        table.head.push("mean over the tasks".into());
    }
    let mut places: Vec<(usize, &str)> = report
        .tasks
        .iter()
        .flat_map(|task| task.arms.iter().map(|arm| (arm.place, arm.name.as_str())))
        .collect();
    places.sort();
    places.dedup();
    let mut push = |name: &str, values: Vec<Option<Spread>>| {
        let mut row = vec![name.to_owned()];
        row.extend(values.iter().map(|value| value.as_ref().map_or("–".into(), spread)));
        if same_way {
            let all: Option<Vec<f64>> = values.iter().map(|v| v.map(|v| v.mean)).collect();
            row.push(
                all.and_then(|all| Spread::of(&all))
                    .map_or("–".into(), |s| format!("{:.4}", s.mean)),
            );
        }
        table.push(row);
    };
    for (place, name) in places {
        let of = |task: &TaskReport| {
            task.arms.iter().find(|arm| arm.place == place).map(|arm| arm.quality)
        };
        push(name, report.tasks.iter().map(of).collect());
    }
    let constants: Vec<Option<Spread>> = report.tasks.iter().map(constant).collect();
    if constants.iter().any(Option::is_some) {
        push(CONSTANT, constants);
    }
    Some(table)
}

/// The metric of the constant answer over the seeds; `None` if it is not known, or if the arms have
/// different ones.
fn constant(task: &TaskReport) -> Option<Spread> {
    let mut by_seed = BTreeMap::new();
    for seed in task.arms.iter().flat_map(|arm| &arm.by_seed) {
        let value = seed.constant.as_ref()?.value?;
        if *by_seed.entry(seed.seed).or_insert(value) != value {
            return None;
        }
    }
    Spread::of(&by_seed.into_values().collect::<Vec<_>>())
}

/// The number of seeds with which an arm is better than the constant answer; `None` if it is not
/// known.
fn better_than_constant(arm: &ArmReport) -> Option<String> {
    let found: Option<Vec<&BesideConstant>> =
        arm.by_seed.iter().map(|seed| seed.constant.as_ref()).collect();
    let found = found.filter(|found| !found.is_empty())?;
    let better = found.iter().filter(|beside| beside.verdict == ConstantVerdict::Better).count();
    Some(format!("{better} of {}", found.len()))
}

/// The quality and the size of a task's arms.
pub fn arms(task: &TaskReport) -> ReportTable {
    let mut table =
        ReportTable::new(&["arm", "", "learning rate", "seeds", "trainable", "share", "task file"]);
    if let Some(slot) = table.head.get_mut(1) {
        slot.clone_from(&task.metric);
    }
    let better: Vec<Option<String>> = task.arms.iter().map(better_than_constant).collect();
    let known = better.iter().any(Option::is_some);
    if known {
        table.head.push("beside the constant answer".into());
    }
    for (arm, better) in task.arms.iter().zip(better) {
        let mut row = vec![
            arm.name.clone(),
            spread(&arm.quality),
            rate_or_dash(arm.learning_rate),
            arm.quality.n.to_string(),
            thousands(arm.trainable),
            percent(arm.trainable as f64 / arm.all.max(1) as f64),
            bytes(arm.delta_bytes as f64),
        ];
        if known {
            row.push(better.map_or("–".into(), |better| format!("better with {better} seeds")));
        }
        table.push(row);
    }
    if let Some(quality) = constant(task) {
        let mut row = vec![CONSTANT.to_owned(), spread(&quality), "–".into()];
        row.push(quality.n.to_string());
        row.resize(table.head.len(), "–".into());
        table.push(row);
    }
    table
}

/// The time and memory of a task's arms.
pub fn costs(task: &TaskReport) -> ReportTable {
    let mut table = ReportTable::new(&["arm", "per step", "tokens/s", "peak memory", "whole run"]);
    let gpu = task.arms.iter().any(|arm| arm.cost.peak_gpu_mib.is_some());
    if gpu {
        table.head.push("peak GPU memory".into());
    }
    let mib = |spread: &Option<Spread>| match spread {
        Some(spread) => format!("{} MiB", with(spread, |mib| digits(mib, 3))),
        None => "–".into(),
    };
    for arm in &task.arms {
        let cost = &arm.cost;
        let mut row = vec![
            arm.name.clone(),
            arm.learning_rate.map_or("–".into(), |_| with(&cost.step_seconds, seconds)),
            with(&cost.tokens_per_second, |value| digits(value, 3)),
            mib(&cost.peak_rss_mib),
            with(&cost.seconds, seconds),
        ];
        if gpu {
            row.push(mib(&cost.peak_gpu_mib));
        }
        table.push(row);
    }
    table
}

/// The comparison of a task's arms with the reference; `None` if there is none.
pub fn against(report: &CompareReport, task: &TaskReport) -> Option<ReportTable> {
    let mut table = ReportTable::new(&["arm", "", "p", "McNemar's p, by seed", "verdict"]);
    if let Some(slot) = table.head.get_mut(1) {
        *slot = format!("{} minus {}'s", task.metric, report.reference);
    }
    for arm in &task.arms {
        let Some(versus) = &arm.versus else { continue };
        let by_seed: Vec<String> = versus.mcnemar.iter().map(|test| probability(test.p)).collect();
        table.push(vec![
            arm.name.clone(),
            signed(versus.difference),
            versus.p.map_or("–".into(), probability),
            if by_seed.is_empty() { "–".into() } else { by_seed.join(", ") },
            verdict(arm, versus, &report.reference),
        ]);
    }
    table.unless_empty()
}

fn verdict(arm: &ArmReport, versus: &Versus, reference: &str) -> String {
    match versus.verdict {
        ArmVerdict::Better => format!("better than {reference}"),
        ArmVerdict::Worse => format!("worse than {reference}"),
        ArmVerdict::NoDifferenceShown if versus.p.is_none() => {
            "every seed differs by the same amount: no t-test".into()
        }
        ArmVerdict::NoDifferenceShown => "no significant difference".into(),
        ArmVerdict::OneSeed if arm.quality.n > 1 => "only one common seed: no verdict".into(),
        ArmVerdict::OneSeed => "one seed: no verdict".into(),
        ArmVerdict::OtherRows => "evaluated on different rows: not comparable".into(),
    }
}

/// The metric at each learning rate tried on a task; `None` if no arm has more than one rate.
pub fn rates(task: &TaskReport) -> Option<ReportTable> {
    let rates = task.arms.iter().flat_map(|arm| &arm.rates);
    let mut rates: Vec<f64> = rates.filter_map(|rate| rate.learning_rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    if task.arms.iter().all(|arm| arm.rates.len() < 2) {
        return None;
    }
    let mut table = ReportTable::new(&["arm"]);
    table.head.extend(rates.iter().map(|rate| rate_name(*rate)));
    for arm in &task.arms {
        let at = |rate: &f64| arm.rates.iter().find(|its| its.learning_rate == Some(*rate));
        let mut row = vec![arm.name.clone()];
        row.extend(rates.iter().map(|rate| match at(rate) {
            Some(its) if Some(*rate) == arm.learning_rate => {
                format!("{} (chosen)", spread(&its.quality))
            }
            Some(its) => spread(&its.quality),
            None => "–".into(),
        }));
        table.push(row);
    }
    Some(table)
}

/// The failed runs; `None` if no run failed.
pub fn failures(report: &CompareReport) -> Option<ReportTable> {
    let mut table = ReportTable::new(&["arm", "task", "learning rate", "seed", "error"]);
    for failure in &report.failures {
        table.push(vec![
            failure.arm.clone(),
            failure.task.clone(),
            rate_or_dash(failure.learning_rate),
            failure.seed.to_string(),
            failure.problem.clone(),
        ]);
    }
    table.unless_empty()
}

/// A task's base, rows, labels and metric, in a line.
pub fn about(task: &TaskReport) -> String {
    let labels = match task.labels.len() {
        0 => String::new(),
        1..=6 => format!("; labels: {}", task.labels.join(", ")),
        count => format!("; {count} labels"),
    };
    let each = |of: &dyn Fn(&ArmReport) -> String| {
        let mut found: Vec<String> = vec![];
        for value in task.arms.iter().map(of) {
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found.join(" or ")
    };
    format!(
        "Base: {}; {} training rows; {} evaluation rows{labels}; metric: {}{}.",
        each(&|arm| arm.base.clone()),
        each(&|arm| thousands(arm.train_rows as u64)),
        each(&|arm| thousands(arm.eval_rows as u64)),
        task.metric,
        if task.greater_is_better { "" } else { " (lower is better)" }
    )
}
