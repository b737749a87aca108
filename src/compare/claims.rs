//! What is commonly said of BitFit, beside what was measured.

use super::format::{bytes, digits, percent};
use super::report::{ArmReport, TaskReport};
use serde::Serialize;

/// Something that is said of BitFit.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// What is said.
    pub claim: &'static str,
    /// Whether times or memory decide it: another run of the same gives other figures.
    pub cost: bool,
    /// What was measured, by task.
    pub measured: Vec<Measured>,
}

/// What was measured of a claim on a task.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// For people.
    pub text: String,
    /// The figure: a ratio or a share.
    pub value: Option<f64>,
    /// Whether the claim holds; none where that cannot be said.
    pub holds: Option<bool>,
}

impl Measured {
    fn missing(why: &str) -> Self {
        Self { text: why.into(), value: None, holds: None }
    }

    /// What it is, and whether the claim holds.
    pub fn shown(&self) -> String {
        match self.holds {
            Some(true) => format!("{}: holds", self.text),
            Some(false) => format!("{}: does not hold", self.text),
            None => self.text.clone(),
        }
    }
}

/// Every claim, for each of `tasks`: of the first arm that is BitFit and the first that is full fine-tuning.
pub fn claims(tasks: &[TaskReport]) -> Vec<Claim> {
    type Measure = fn(&TaskReport, &ArmReport, &ArmReport) -> Measured;
    let against_full: [(&'static str, bool, Measure); 3] = [
        ("trains 5 to 10 times as fast as full fine-tuning", true, speed),
        ("needs 90 % less memory", true, memory),
        ("reaches 95 to 99 % of full fine-tuning's quality", false, quality),
    ];
    let of = |task: &TaskReport, method: &str| {
        task.arms.iter().find(|arm| arm.method == method).cloned()
    };
    let mut claims: Vec<Claim> = against_full
        .into_iter()
        .map(|(claim, cost, measure)| {
            let measured = tasks.iter().map(|task| match (of(task, "bitfit"), of(task, "full")) {
                (Some(bitfit), Some(full)) => measure(task, &bitfit, &full),
                (None, _) => Measured::missing("no BitFit among the arms"),
                (_, None) => Measured::missing("no full fine-tuning among the arms"),
            });
            Claim { claim, cost, measured: measured.collect() }
        })
        .collect();
    type Own = fn(&TaskReport, &ArmReport) -> Measured;
    let own: [(&'static str, Own); 2] = [
        ("trains 0.08 to 0.1 % of the parameters", parameters),
        ("saves 0.4 MB instead of 440 MB, 1 in 1,100", size),
    ];
    for (claim, measure) in own {
        let measured = tasks.iter().map(|task| match of(task, "bitfit") {
            Some(bitfit) => measure(task, &bitfit),
            None => Measured::missing("no BitFit among the arms"),
        });
        claims.push(Claim { claim, cost: false, measured: measured.collect() });
    }
    claims
}

/// Median steps, at each arm's own rate; the ratio of the means over seeds.
fn speed(_: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let ratio = full.cost.step_seconds.mean / bitfit.cost.step_seconds.mean;
    Measured {
        text: format!("{} times as fast, step by step", digits(ratio, 3)),
        value: Some(ratio),
        holds: Some(ratio >= 5.0),
    }
}

fn memory(_: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let of = |arm: &ArmReport| arm.cost.peak_gpu_mib.or(arm.cost.peak_rss_mib);
    let (Some(ours), Some(theirs)) = (of(bitfit), of(full)) else {
        return Measured::missing("peak memory could not be measured run by run");
    };
    let saved = 1.0 - ours.mean / theirs.mean;
    let (a, b) = (digits(ours.mean, 3), digits(theirs.mean, 3));
    let (share, what) = (digits(100.0 * saved.abs(), 2), if saved < 0.0 { "more" } else { "less" });
    Measured {
        text: format!("{share} % {what}: {a} MiB instead of {b}"),
        value: Some(saved),
        holds: Some(saved >= 0.9),
    }
}

fn quality(task: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let (ours, theirs) = (bitfit.quality, full.quality);
    if !task.greater_is_better || theirs.mean <= 0.0 {
        return Measured::missing("no share can be taken of this metric");
    }
    let ratio = ours.mean / theirs.mean;
    let share = format!("{} % ({:.4} of {:.4})", digits(100.0 * ratio, 4), ours.mean, theirs.mean);
    let one = ours.n.min(theirs.n) < 2;
    Measured {
        text: if one { format!("{share}, of one seed: no verdict") } else { share },
        value: Some(ratio),
        holds: (!one).then_some(ratio >= 0.95),
    }
}

fn parameters(_: &TaskReport, bitfit: &ArmReport) -> Measured {
    let share = bitfit.trainable as f64 / bitfit.all.max(1) as f64;
    Measured {
        text: format!("{}, head included", percent(share)),
        value: Some(share),
        holds: Some(share <= 0.001),
    }
}

fn size(task: &TaskReport, bitfit: &ArmReport) -> Measured {
    let ratio = task.base_bytes as f64 / bitfit.delta_bytes.max(1) as f64;
    let (ours, base) = (bytes(bitfit.delta_bytes as f64), bytes(task.base_bytes as f64));
    Measured {
        text: format!("{ours} instead of {base}, 1 in {}", digits(ratio, 3)),
        value: Some(ratio),
        holds: Some(ratio >= 1100.0),
    }
}
