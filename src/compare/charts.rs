//! The plots of a report.

use super::format::{self, digits, short};
use super::grid::{rate_name, slug};
use super::plot::{Axis, Bar, Heat, Plot, Point, Scale, Series};
use super::report::{ArmReport, Report, TaskReport};
use super::stats::Spread;
use crate::models::Term;
use std::collections::BTreeSet;

/// All plots of a report, in order. The names of a task's plots start with its [`prefix`].
pub fn all(report: &Report) -> Vec<Plot> {
    let mut plots: Vec<Plot> = by_rows(report).into_iter().collect();
    for task in &report.tasks {
        plots.extend(of_task(task));
    }
    plots
}

/// The prefix of the names of a task's plots.
pub fn prefix(task: &TaskReport) -> String {
    format!("{}--", slug(&task.name))
}

fn of_task(task: &TaskReport) -> Vec<Plot> {
    let mut plots = vec![];
    let prefix = prefix(task);
    let name = |kind: &str| format!("{prefix}{kind}");
    let metric = Axis { label: &task.metric, scale: Scale::Linear, shown: |value| plain(value) };
    let points = |arm: &ArmReport| Point { x: arm.trainable as f64, ..point(0.0, &arm.quality) };
    let series = task.arms.iter().map(|arm| series(arm, vec![points(arm)])).collect::<Vec<_>>();
    let x = Axis { label: "trainable parameters", scale: Scale::Log, shown: short };
    let title = format!("{} against trainable parameters", capital(&task.metric));
    let text = words(task, |arm| {
        format!("{} with {} parameters", format::spread(&arm.quality), short(arm.trainable as f64))
    });
    plots.push(Plot::scatter((&name("parameters"), &title, &text), &series, &x, &metric));

    let curves: Vec<Series> = task
        .arms
        .iter()
        .filter(|arm| arm.curve.len() > 1)
        .map(|arm| {
            let points = arm.curve.iter().map(|at| point(at.step as f64, &at.quality));
            self::series(arm, points.collect())
        })
        .collect();
    if !curves.is_empty() {
        let x = Axis { label: "step", scale: Scale::Linear, shown: short };
        let text = words(task, |arm| {
            let last = arm.curve.last().map(|at| format::spread(&at.quality)).unwrap_or_default();
            format!("{last} at the last of {} evaluations", arm.curve.len())
        });
        let title = format!("Learning curves: {} over the steps", task.metric);
        plots.push(Plot::lines((&name("curves"), &title, &text), &curves, &x, &metric));
    }

    let rates: Vec<Series> = task
        .arms
        .iter()
        .filter(|arm| arm.rates.len() > 1)
        .map(|arm| {
            let mut points: Vec<Point> =
                arm.rates.iter().map(|at| point(at.learning_rate, &at.quality)).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            self::series(arm, points)
        })
        .collect();
    if !rates.is_empty() {
        let x = Axis { label: "learning rate", scale: Scale::Log, shown: tick_rate };
        let text = words(task, |arm| {
            let at = |rate: &super::report::RateReport| {
                format!("{} at {}", format::spread(&rate.quality), rate_name(rate.learning_rate))
            };
            arm.rates.iter().map(at).collect::<Vec<_>>().join(", ")
        });
        let title = format!("{} against learning rate", capital(&task.metric));
        plots.push(Plot::lines((&name("rates"), &title, &text), &rates, &x, &metric));
    }

    let bars = |value: &dyn Fn(&ArmReport) -> Option<Spread>, shown: &dyn Fn(f64) -> String| {
        let bar = |arm: &ArmReport| {
            let spread = value(arm)?;
            let (name, style) = (arm.name.clone(), arm.place);
            let (value, sd) = (spread.mean, spread.sd.unwrap_or(0.0));
            Some(Bar { name, style, value, sd, shown: shown(value) })
        };
        task.arms.iter().filter_map(bar).collect::<Vec<_>>()
    };
    let listed = |bars: &[Bar]| {
        let bars = bars.iter().map(|bar| format!("{}: {}", bar.name, bar.shown));
        bars.collect::<Vec<_>>().join("; ")
    };
    let seconds = bars(&|arm| Some(arm.cost.step_seconds), &format::seconds);
    plots.push(Plot::bars((&name("seconds"), "Seconds per step", &listed(&seconds)), &seconds));
    let mib = |value: f64| format!("{} MiB", digits(value, 3));
    let memory = bars(&|arm| arm.cost.peak_gpu_mib.or(arm.cost.peak_rss_mib), &mib);
    if !memory.is_empty() {
        plots.push(Plot::bars((&name("memory"), "Peak memory", &listed(&memory)), &memory));
    }

    for arm in &task.arms {
        plots.extend(moved(task, arm, &name(&format!("moved-{}", slug(&arm.name)))));
    }
    for arm in &task.arms {
        plots.extend(confusion(task, arm, &name(&format!("confusion-{}", slug(&arm.name)))));
    }
    plots
}

/// The metric against the number of training rows; `None` unless all tasks are one task at
/// different sizes.
fn by_rows(report: &Report) -> Option<Plot> {
    let first = report.tasks.first()?;
    let sizes: BTreeSet<usize> =
        report.tasks.iter().flat_map(|task| &task.arms).map(|arm| arm.train_rows).collect();
    let same = |task: &TaskReport| {
        task.rows_fingerprint == first.rows_fingerprint && task.metric == first.metric
    };
    if sizes.len() < 2 || sizes.len() < report.tasks.len() || !report.tasks.iter().all(same) {
        return None;
    }
    let mut of_arms: Vec<Series> = vec![];
    for task in &report.tasks {
        for arm in &task.arms {
            let its = point(arm.train_rows as f64, &arm.quality);
            match of_arms.iter_mut().find(|series| series.name == arm.name) {
                Some(series) => series.points.push(its),
                None => of_arms.push(series(arm, vec![its])),
            }
        }
    }
    for series in &mut of_arms {
        series.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let x = Axis { label: "training rows", scale: Scale::Log, shown: short };
    let metric = Axis { label: &first.metric, scale: Scale::Linear, shown: |value| plain(value) };
    let title = format!("{} against training rows", capital(&first.metric));
    let text = of_arms.iter().map(|series| {
        let at = |p: &Point| format!("{:.4} of {}", p.y, p.x);
        format!("{}: {}", series.name, series.points.iter().map(at).collect::<Vec<_>>().join(", "))
    });
    let text = text.collect::<Vec<_>>().join("; ");
    Some(Plot::lines(("training-rows", &title, &text), &of_arms, &x, &metric))
}

/// A heat map of the mean change of an arm's biases, by place and layer; `None` if none moved.
fn moved(task: &TaskReport, arm: &ArmReport, name: &str) -> Option<Plot> {
    let most = arm.moved.iter().map(|moved| moved.mean).fold(0.0, f64::max);
    let layers: BTreeSet<usize> = arm.moved.iter().filter_map(|moved| moved.layer).collect();
    let terms: Vec<Term> = Term::ALL
        .into_iter()
        .filter(|term| arm.moved.iter().any(|moved| moved.term == *term && moved.layer.is_some()))
        .collect();
    if most == 0.0 || layers.is_empty() {
        return None;
    }
    let unit = 10f64.powf(most.log10().floor() - 1.0);
    let cell = |term: Term, layer: usize| {
        let found = arm.moved.iter().find(|m| m.term == term && m.layer == Some(layer))?;
        Some((found.mean / most, format!("{:.0}", found.mean / unit)))
    };
    let row = |term: &Term| layers.iter().map(|layer| cell(*term, *layer)).collect();
    let heat = Heat {
        rows: terms.iter().map(|term| term.name().replace('_', " ")).collect(),
        columns: layers.iter().map(|layer| layer.to_string()).collect(),
        across: format!("layer; mean |after − before|, in {}", rate_name(unit)),
        cells: terms.iter().map(row).collect(),
    };
    let title = format!("{}: change of each bias", arm.name);
    let largest = arm.moved.iter().max_by(|a, b| a.mean.total_cmp(&b.mean))?;
    let text = format!(
        "The mean change of the biases by place and layer, {} on {}; the largest is {} in {}",
        arm.name,
        task.name,
        digits(largest.mean, 3),
        largest.layer.map_or("the embeddings".into(), |layer| format!(
            "{} of layer {layer}",
            largest.term.name()
        ))
    );
    Some(Plot::heat((name, &title, &text), &heat))
}

fn confusion(task: &TaskReport, arm: &ArmReport, name: &str) -> Option<Plot> {
    let counts = arm.confusion.as_ref()?;
    // The cells of a larger matrix would be too small to read.
    if counts.len() > 12 {
        return None;
    }
    let cells = counts.iter().map(|row| {
        let sum = row.iter().sum::<u64>().max(1) as f64;
        let cell = |&count: &u64| {
            let share = count as f64 / sum;
            let shown = if counts.len() <= 4 {
                format!("{count} ({:.0} %)", 100.0 * share)
            } else {
                count.to_string()
            };
            Some((share, shown))
        };
        row.iter().map(cell).collect()
    });
    let heat = Heat {
        rows: task.labels.clone(),
        columns: task.labels.clone(),
        across: "predicted; rows are true labels".into(),
        cells: cells.collect(),
    };
    let runs = arm.quality.n;
    let over = if runs > 1 { format!(", {runs} seeds together") } else { String::new() };
    let title = format!("{}: confusion matrix{over}", arm.name);
    let rows = task.labels.iter().zip(counts).map(|(label, row)| {
        let row: Vec<String> = task
            .labels
            .iter()
            .zip(row)
            .map(|(guess, count)| format!("{count} as {guess}"))
            .collect();
        format!("{label}: {}", row.join(", "))
    });
    let text = rows.collect::<Vec<_>>().join("; ");
    Some(Plot::heat((name, &title, &text), &heat))
}

fn series(arm: &ArmReport, points: Vec<Point>) -> Series {
    Series { name: arm.name.clone(), style: arm.place, points }
}

fn point(x: f64, spread: &Spread) -> Point {
    Point { x, y: spread.mean, sd: spread.sd.unwrap_or(0.0) }
}

/// The description of a plot of all arms, in words.
fn words(task: &TaskReport, of: impl Fn(&ArmReport) -> String) -> String {
    let arms = task.arms.iter().map(|arm| format!("{}: {}", arm.name, of(arm)));
    arms.collect::<Vec<_>>().join("; ")
}

/// A metric as a tick's text: at most four decimals, without trailing zeros.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".into(),
        short => short.into(),
    }
}

/// A learning rate as a tick's text, to two significant digits: ticks are products of powers of
/// ten, which floating point rounds.
fn tick_rate(rate: f64) -> String {
    let text = format!("{rate:.1e}");
    text.replace(".0e", "e")
}

/// The text with its first letter in upper case.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
