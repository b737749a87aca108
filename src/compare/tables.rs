//! The report's tables and sentences, the same in Markdown and HTML.

use super::format::{
    bytes, digits, percent, probability, rate_name, seconds, signed, spread, with,
};
use super::report::{ArmReport, ArmVerdict, Claim, CompareReport, TaskReport, Versus};
use super::stats::Spread;
use crate::numbers::thousands;

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
    fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|name| (*name).to_owned()).collect(), rows: vec![] }
    }

    /// Adds a row of cells without a verdict.
    fn push(&mut self, row: Vec<String>) {
        let cell = |text| TableCell { text, holds: None };
        self.rows.push(row.into_iter().map(cell).collect());
    }

    /// The table, unless it has no row.
    fn unless_empty(self) -> Option<Self> {
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
        "{} on {}, {} ({seeds}).",
        count(arms, "arm"),
        count(tasks, "task"),
        count(report.seeds.len(), "seed")
    ));
    if report.runs_done < report.runs_planned {
        out.push(format!(
            "Not complete: {} of {} runs are done, {} failed.",
            report.runs_done,
            report.runs_planned,
            report.failures.len()
        ));
    }
    out.push(if report.tune {
        "Where an arm has several learning rates, the best of them on the first seed is used for all seeds, so that the first seed is a little in its favour.".into()
    } else {
        "Where an arm has several learning rates, the best by the mean over its seeds is shown.".into()
    });
    if report.seeds.len() < 2 {
        out.push(
            "With one seed no winner is named: another seed alone can turn the order round.".into(),
        );
    }
    out
}

/// Notes on how the measurements were made.
pub fn notes(report: &CompareReport) -> Vec<String> {
    let all = |same: fn(&TaskReport) -> bool| report.tasks.iter().all(same);
    let on = match (all(|task| task.same_base), all(|task| task.same_rows)) {
        (true, true) => {
            "A task's runs are of the same base, and with each seed on the same rows in the same order, with the same first head"
        }
        (false, true) => {
            "A task's arms are of different bases; with each seed they have the same rows in the same order"
        }
        (true, false) => "A task's runs are of the same base, but its arms have different rows",
        (false, false) => "A task's arms are of different bases, and have different rows",
    };
    let measured_by = match report.best_state {
        Some(true) => {
            "The quality is the best evaluation of each run: on rows that chose nothing it would be a little lower, the more so the more rates an arm had."
        }
        Some(false) => {
            "The quality is the last evaluation of each run; on rows that chose no rate it would be a little lower, where an arm had several."
        }
        None => {
            "The quality is the best evaluation of each run, or the last where load_best_model_at_end is false."
        }
    };
    let about = match &report.claims_about[..] {
        [] => None,
        [bitfit] => Some(format!("What is said of BitFit is measured of the arm {bitfit}.")),
        [bitfit, full, ..] => Some(format!(
            "What is said of BitFit is measured of the arms {bitfit} and {full}. Shares of quality are taken seed by seed; a paired t-test says whether they differ from 95 %."
        )),
    };
    let mut notes = vec![
        format!("{on}; all methods compute with the same packed kernels."),
        "A figure with ± is the mean over seeds and the standard deviation of a sample (n − 1).".into(),
        format!(
            "Differences are the arm's less {}'s on the same seeds. p is of a paired t-test over the seeds, with Holm's correction over a task's arms; below 0.05 a difference is called one. \
             McNemar's exact test asks for each seed whether two arms are right on different evaluation rows; it knows nothing of other seeds, so no verdict rests on it.",
            report.reference
        ),
        measured_by.into(),
        "Seconds per step are the median of a run's. Peak memory is the highest of a process of its own, with base and rows.".into(),
        "Parameters and files count the new head.".into(),
    ];
    notes.extend(about);
    notes
}

/// The claims about BitFit beside what was measured; `None` without tasks or claims.
pub fn claims(report: &CompareReport) -> Option<ReportTable> {
    if report.tasks.is_empty() {
        return None;
    }
    let mut head = vec!["what is said of BitFit".to_owned()];
    head.extend(match &report.tasks[..] {
        [_] => vec!["measured here".to_owned()],
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
        table.head.push("mean of the tasks".into());
    }
    let mut places: Vec<(usize, &str)> = report
        .tasks
        .iter()
        .flat_map(|task| task.arms.iter().map(|arm| (arm.place, arm.name.as_str())))
        .collect();
    places.sort();
    places.dedup();
    for (place, name) in places {
        let of = |task: &TaskReport| {
            task.arms.iter().find(|arm| arm.place == place).map(|arm| arm.quality)
        };
        let values: Vec<Option<Spread>> = report.tasks.iter().map(of).collect();
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
    }
    Some(table)
}

/// The quality and the size of a task's arms.
pub fn arms(task: &TaskReport) -> ReportTable {
    let mut table =
        ReportTable::new(&["arm", "", "learning rate", "seeds", "trainable", "share", "task file"]);
    if let Some(slot) = table.head.get_mut(1) {
        slot.clone_from(&task.metric);
    }
    for arm in &task.arms {
        table.push(vec![
            arm.name.clone(),
            spread(&arm.quality),
            rate_name(arm.learning_rate),
            arm.quality.n.to_string(),
            thousands(arm.trainable),
            percent(arm.trainable as f64 / arm.all.max(1) as f64),
            bytes(arm.delta_bytes as f64),
        ]);
    }
    table
}

/// The time and memory of a task's arms.
pub fn costs(task: &TaskReport) -> ReportTable {
    let mut table =
        ReportTable::new(&["arm", "per step", "tokens/s", "peak memory", "a whole run"]);
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
            with(&cost.step_seconds, seconds),
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
        *slot = format!("{} less {}'s", task.metric, report.reference);
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
            "every seed differs by the same: no spread to test by".into()
        }
        ArmVerdict::NoDifferenceShown => "no difference shown".into(),
        ArmVerdict::OneSeed if arm.quality.n > 1 => {
            "only one seed in common: no winner named".into()
        }
        ArmVerdict::OneSeed => "one seed: no winner named".into(),
        ArmVerdict::OtherRows => "evaluated on other rows: not to be compared".into(),
    }
}

/// The metric at each learning rate tried on a task; `None` if no arm has more than one rate.
pub fn rates(task: &TaskReport) -> Option<ReportTable> {
    let mut rates: Vec<f64> =
        task.arms.iter().flat_map(|arm| arm.rates.iter().map(|rate| rate.learning_rate)).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    if task.arms.iter().all(|arm| arm.rates.len() < 2) {
        return None;
    }
    let mut table = ReportTable::new(&["arm"]);
    table.head.extend(rates.iter().map(|rate| rate_name(*rate)));
    for arm in &task.arms {
        let at = |rate: &f64| arm.rates.iter().find(|its| its.learning_rate == *rate);
        let mut row = vec![arm.name.clone()];
        row.extend(rates.iter().map(|rate| match at(rate) {
            Some(its) if *rate == arm.learning_rate => format!("{} (chosen)", spread(&its.quality)),
            Some(its) => spread(&its.quality),
            None => "–".into(),
        }));
        table.push(row);
    }
    Some(table)
}

/// The failed runs; `None` if no run failed.
pub fn failures(report: &CompareReport) -> Option<ReportTable> {
    let mut table = ReportTable::new(&["arm", "task", "learning rate", "seed", "why"]);
    for failure in &report.failures {
        table.push(vec![
            failure.arm.clone(),
            failure.task.clone(),
            rate_name(failure.learning_rate),
            failure.seed.to_string(),
            failure.problem.clone(),
        ]);
    }
    table.unless_empty()
}

/// A task's base, rows, labels and metric, in a sentence.
pub fn about(task: &TaskReport) -> String {
    let labels = match task.labels.len() {
        0 => String::new(),
        1..=6 => format!(", labels {}", task.labels.join(", ")),
        count => format!(", {count} labels"),
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
        "{}, {} training rows, {} evaluation rows{labels}; {} metric is {}.",
        each(&|arm| arm.base.clone()),
        each(&|arm| thousands(arm.train_rows as u64)),
        each(&|arm| thousands(arm.eval_rows as u64)),
        if task.greater_is_better { "the" } else { "the (less is better)" },
        task.metric
    )
}
