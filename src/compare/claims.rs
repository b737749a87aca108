//! Common claims about BitFit, beside what was measured.

use super::format::{bytes, digits, percent, with};
use super::report::{ArmReport, SIGNIFICANT, TaskReport};
use super::stats::{Spread, paired_t};
use serde::Serialize;

/// A common claim about BitFit.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// The claim's text.
    pub claim: &'static str,
    /// Whether the claim is about time or memory, which differ when the same run is repeated.
    pub cost: bool,
    /// The measurement on each task.
    pub measured: Vec<Measured>,
}

/// The measurement of a claim on one task.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// The measurement in words.
    pub text: String,
    /// The measured ratio or share; `None` if it could not be measured.
    pub value: Option<f64>,
    /// Whether the claim holds; `None` if the measurement does not decide it.
    pub holds: Option<bool>,
}

impl Measured {
    fn missing(why: &str) -> Self {
        Self { text: why.into(), value: None, holds: None }
    }

    /// The text, followed by the verdict if there is one.
    pub fn shown(&self) -> String {
        match self.holds {
            Some(true) => format!("{}: holds", self.text),
            Some(false) => format!("{}: does not hold", self.text),
            None => self.text.clone(),
        }
    }
}

/// Index and name of an arm of the grid; `None` if the grid has no such arm.
type Arm<'a> = Option<(usize, &'a String)>;

/// The claims about BitFit, each measured on all `tasks`. Claims about an arm that the grid lacks
/// are left out.
pub fn claims(tasks: &[TaskReport], bitfit: Arm<'_>, full: Arm<'_>) -> Vec<Claim> {
    type Own = fn(&ArmReport) -> Measured;
    type Against = fn(&TaskReport, &ArmReport, &ArmReport) -> Measured;
    let against_full: [(&'static str, bool, Against); 3] = [
        ("trains 5 to 10 times as fast as full fine-tuning", true, speed),
        ("needs 90 % less memory", true, memory),
        ("reaches 95 to 99 % of full fine-tuning's quality", false, quality),
    ];
    let own: [(&'static str, Own); 2] = [
        ("trains 0.08 to 0.1 % of the parameters", parameters),
        ("saves 0.4 MB instead of 440 MB, 1 in 1,100", size),
    ];
    let Some(bitfit) = bitfit else { return vec![] };
    let mut claims = vec![];
    for (claim, cost, measure) in against_full {
        let Some(full) = full else { continue };
        let measured = tasks.iter().map(|task| match (of(task, bitfit), of(task, full)) {
            (Ok(ours), Ok(theirs)) => measure(task, ours, theirs),
            (Err(missing), _) | (_, Err(missing)) => missing,
        });
        claims.push(Claim { claim, cost, measured: measured.collect() });
    }
    for (claim, measure) in own {
        let measured =
            tasks.iter().map(|task| of(task, bitfit).map_or_else(|missing| missing, measure));
        claims.push(Claim { claim, cost: false, measured: measured.collect() });
    }
    claims
}

/// The report of an arm on `task`; the error is a [`Measured`] that says that no run is done.
fn of<'a>(
    task: &'a TaskReport,
    (place, name): (usize, &String),
) -> std::result::Result<&'a ArmReport, Measured> {
    let arm = task.arms.iter().find(|arm| arm.place == place);
    arm.ok_or_else(|| Measured::missing(&format!("no run of {name} is done")))
}

/// The ratio of the mean step times over the seeds, each arm at its own learning rate.
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

/// The mean over the common seeds of BitFit's metric divided by full fine-tuning's. A paired t-test
/// tells whether the mean differs from 95 %.
fn quality(task: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let of = |seed: u64| full.by_seed.iter().find(|their| their.seed == seed);
    let both = bitfit.by_seed.iter().filter_map(|our| Some((our.value, of(our.seed)?.value)));
    let both: Vec<(f64, f64)> = both.collect();
    if !task.greater_is_better || both.iter().any(|(_, theirs)| *theirs <= 0.0) {
        return Measured::missing("no share can be taken of this metric");
    }
    let shares: Vec<f64> = both.iter().map(|(ours, theirs)| ours / theirs).collect();
    let Some(share) = Spread::of(&shares) else {
        return Measured::missing("no seed in common");
    };
    let tested = paired_t(&shares.iter().map(|share| (*share, 0.95)).collect::<Vec<_>>());
    // If all shares are equal but not 95 %, the test has no p-value, and the mean decides.
    let clear = tested.is_some_and(|test| test.p.is_none_or(|p| p < SIGNIFICANT));
    let shown = with(&share, |share| digits(100.0 * share, 3));
    let shown = format!("{shown} % ({:.4} of {:.4})", bitfit.quality.mean, full.quality.mean);
    Measured {
        text: match share.n {
            1 => format!("{shown}, of one seed: no verdict"),
            _ if clear => shown,
            _ => format!("{shown}: too close to 95 % for so few seeds to tell"),
        },
        value: Some(share.mean),
        holds: clear.then_some(share.mean >= 0.95),
    }
}

fn parameters(bitfit: &ArmReport) -> Measured {
    let share = bitfit.trainable as f64 / bitfit.all.max(1) as f64;
    Measured {
        text: format!("{}, head included", percent(share)),
        value: Some(share),
        holds: Some((0.0008..=0.001).contains(&share)),
    }
}

fn size(bitfit: &ArmReport) -> Measured {
    let ratio = bitfit.base_bytes as f64 / bitfit.delta_bytes.max(1) as f64;
    let (ours, base) = (bytes(bitfit.delta_bytes as f64), bytes(bitfit.base_bytes as f64));
    Measured {
        text: format!("{ours} instead of {base}, 1 in {}", digits(ratio, 3)),
        value: Some(ratio),
        holds: Some(ratio >= 1100.0),
    }
}
