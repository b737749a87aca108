//! The plots of a report.

use super::format::{self, digits, rate_name, rate_or_dash, short, slug};
use super::plot::{Axis, Caption, Heat, Plot, PlotBar, Point, Series};
use super::report::{ArmReport, CompareReport, RateReport, TaskReport};
use super::scale::Scale;
use crate::models::Term;
use crate::stats::Spread;
use std::collections::BTreeSet;

/// The plots of a report.
pub struct Charts {
    /// The plots of all tasks together.
    pub overall: Vec<Plot>,
    /// The plots of each of the report's tasks, in the order of the tasks.
    pub tasks: Vec<Vec<Plot>>,
}

/// All plots of a report.
pub fn all(report: &CompareReport) -> Charts {
    Charts {
        overall: by_rows(report).into_iter().collect(),
        tasks: report.tasks.iter().map(of_task).collect(),
    }
}

fn of_task(task: &TaskReport) -> Vec<Plot> {
    let mut plots = vec![parameters(task)];
    plots.extend(curves(task));
    plots.extend(rates(task));
    plots.extend(costs(task));
    plots.extend(task.arms.iter().filter_map(|arm| moved(task, arm)));
    plots.extend(task.arms.iter().filter_map(|arm| confusion(task, arm)));
    plots
}

/// The caption of a plot of a task. The names of a task's plots begin with the task's.
fn caption(task: &TaskReport, kind: &str, title: String, description: String) -> Caption {
    Caption { name: format!("{}--{kind}", slug(&task.name)), title, description }
}

/// The axis of a task's metric.
fn metric_axis(metric: &str) -> Axis<'_> {
    Axis { label: metric, scale: Scale::Linear, shown: plain }
}

/// The metric against the number of trainable parameters.
fn parameters(task: &TaskReport) -> Plot {
    let points = |arm: &ArmReport| Point { x: arm.trainable as f64, ..point(0.0, &arm.quality) };
    let series = task.arms.iter().map(|arm| series(arm, vec![points(arm)])).collect::<Vec<_>>();
    let x = Axis { label: "trainable parameters", scale: Scale::Log, shown: short };
    let title = format!("{} against trainable parameters", capital(&task.metric));
    let text = words(task, |arm| {
        format!("{} with {} parameters", format::spread(&arm.quality), short(arm.trainable as f64))
    });
    let caption = caption(task, "parameters", title, text);
    Plot::scatter(caption, &series, &x, &metric_axis(&task.metric))
}

/// The metric over the steps; `None` if no arm was evaluated more than once.
fn curves(task: &TaskReport) -> Option<Plot> {
    let curves: Vec<Series> = task
        .arms
        .iter()
        .filter(|arm| arm.curve.len() > 1)
        .map(|arm| {
            let points = arm.curve.iter().map(|at| point(at.step as f64, &at.quality));
            series(arm, points.collect())
        })
        .collect();
    if curves.is_empty() {
        return None;
    }
    let x = Axis { label: "step", scale: Scale::Linear, shown: short };
    let text = words(task, |arm| {
        let last = arm.curve.last().map(|at| format::spread(&at.quality)).unwrap_or_default();
        format!("{last} at the last of {} evaluations", arm.curve.len())
    });
    let title = format!("Learning curves: {} over the steps", task.metric);
    let caption = caption(task, "curves", title, text);
    Some(Plot::lines(caption, &curves, &x, &metric_axis(&task.metric)))
}

/// The metric against the learning rate; `None` if no arm has more than one rate.
fn rates(task: &TaskReport) -> Option<Plot> {
    let rates: Vec<Series> = task
        .arms
        .iter()
        .filter(|arm| arm.rates.len() > 1)
        .map(|arm| {
            let at = |at: &RateReport| Some(point(at.learning_rate?, &at.quality));
            let mut points: Vec<Point> = arm.rates.iter().filter_map(at).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            series(arm, points)
        })
        .collect();
    if rates.is_empty() {
        return None;
    }
    let x = Axis { label: "learning rate", scale: Scale::Log, shown: tick_rate };
    let text = words(task, |arm| {
        let at = |rate: &RateReport| {
            format!("{} at {}", format::spread(&rate.quality), rate_or_dash(rate.learning_rate))
        };
        arm.rates.iter().map(at).collect::<Vec<_>>().join(", ")
    });
    let title = format!("{} against learning rate", capital(&task.metric));
    let caption = caption(task, "rates", title, text);
    Some(Plot::lines(caption, &rates, &x, &metric_axis(&task.metric)))
}

/// The time per step, and the peak memory of those arms whose memory was measured.
fn costs(task: &TaskReport) -> Vec<Plot> {
    let bars = |value: &dyn Fn(&ArmReport) -> Option<Spread>, shown: &dyn Fn(f64) -> String| {
        let bar = |arm: &ArmReport| {
            let spread = value(arm)?;
            let (name, style) = (arm.name.clone(), arm.place);
            let (value, sd) = (spread.mean, spread.sd.unwrap_or(0.0));
            Some(PlotBar { name, style, value, sd, shown: shown(value) })
        };
        task.arms.iter().filter_map(bar).collect::<Vec<_>>()
    };
    let plot = |kind: &str, title: &str, bars: &[PlotBar]| {
        let text = bars.iter().map(|bar| format!("{}: {}", bar.name, bar.shown));
        let text = text.collect::<Vec<_>>().join("; ");
        Plot::bars(caption(task, kind, title.into(), text), bars)
    };
    // What a method without steps does is no step beside the others'.
    let per_step = |arm: &ArmReport| arm.learning_rate.map(|_| arm.cost.step_seconds);
    let seconds = bars(&per_step, &format::seconds);
    let mut plots = vec![];
    if !seconds.is_empty() {
        plots.push(plot("seconds", "Seconds per step", &seconds));
    }
    let mib = |value: f64| format!("{} MiB", digits(value, 3));
    let memory = bars(&|arm| arm.cost.peak_gpu_mib.or(arm.cost.peak_rss_mib), &mib);
    if !memory.is_empty() {
        plots.push(plot("memory", "Peak memory", &memory));
    }
    plots
}

/// The metric against the number of training rows; `None` unless all tasks are one task at
/// different sizes.
fn by_rows(report: &CompareReport) -> Option<Plot> {
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
    let title = format!("{} against training rows", capital(&first.metric));
    let text = of_arms.iter().map(|series| {
        let at = |p: &Point| format!("{:.4} with {} rows", p.y, p.x);
        format!("{}: {}", series.name, series.points.iter().map(at).collect::<Vec<_>>().join(", "))
    });
    let description = text.collect::<Vec<_>>().join("; ");
    let caption = Caption { name: "training-rows".into(), title, description };
    Some(Plot::lines(caption, &of_arms, &x, &metric_axis(&first.metric)))
}

/// A heat map of the mean change of an arm's biases, by place and layer; `None` if none moved.
fn moved(task: &TaskReport, arm: &ArmReport) -> Option<Plot> {
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
        "Mean change of each bias by place and layer, {} on {}; the largest is {} in {}",
        arm.name,
        task.name,
        digits(largest.mean, 3),
        largest.layer.map_or("the embeddings".into(), |layer| format!(
            "{} of layer {layer}",
            largest.term.name()
        ))
    );
    let kind = format!("moved-{}", slug(&arm.name));
    Some(Plot::heat(caption(task, &kind, title, text), &heat))
}

fn confusion(task: &TaskReport, arm: &ArmReport) -> Option<Plot> {
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
        across: "predicted label; rows: true label".into(),
        cells: cells.collect(),
    };
    let runs = arm.quality.n;
    let over = if runs > 1 { format!(", sum over {runs} seeds") } else { String::new() };
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
    let kind = format!("confusion-{}", slug(&arm.name));
    Some(Plot::heat(caption(task, &kind, title, text), &heat))
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
