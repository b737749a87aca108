//! Common claims about BitFit, beside what was measured.

use super::format::{bytes, digits, percent, with};
use super::report::{ArmReport, Claim, Measured, SeedReport, TaskReport};
use crate::stats::{SIGNIFICANT, Spread, paired_t};

/// A measurement that could not be made, and why.
fn missing(why: &str) -> Measured {
    Measured { text: why.into(), value: None, holds: None }
}

/// The claims about BitFit, each measured on all `tasks`.
///
/// `about` names the arms to measure: the first BitFit arm, then the first arm of full fine-tuning.
/// Claims about an arm that is not named are left out.
pub fn claims(tasks: &[TaskReport], about: &[String]) -> Vec<Claim> {
    type OfBitfit = fn(&ArmReport) -> Measured;
    type OfBoth = fn(&TaskReport, &ArmReport, &ArmReport) -> Measured;
    let of_both: [(&str, bool, OfBoth); 3] = [
        ("trains 5 to 10 times as fast as full fine-tuning", true, speed),
        ("needs 90 % less memory", true, memory),
        ("reaches 95 to 99 % of full fine-tuning's quality", false, quality),
    ];
    let of_bitfit: [(&str, OfBitfit); 2] = [
        ("trains 0.08 to 0.1 % of the parameters", parameters),
        ("saves 0.4 MB instead of 440 MB, 1/1,100 of the size", size),
    ];
    let mut about = about.iter();
    let Some(bitfit) = about.next() else { return vec![] };
    let mut claims = vec![];
    if let Some(full) = about.next() {
        claims.extend(of_both.map(|(claim, cost, measure)| {
            let measured = tasks.iter().map(|task| match (arm(task, bitfit), arm(task, full)) {
                (Ok(ours), Ok(theirs)) => measure(task, ours, theirs),
                (Err(missing), _) | (_, Err(missing)) => missing,
            });
            Claim { claim: claim.into(), cost, measured: measured.collect() }
        }));
    }
    claims.extend(of_bitfit.map(|(claim, measure)| {
        let measured = tasks.iter().map(|task| arm(task, bitfit).map_or_else(|e| e, measure));
        Claim { claim: claim.into(), cost: false, measured: measured.collect() }
    }));
    claims
}

/// The report of the arm `name` on `task`; the error is a [`Measured`] that says that no run is
/// done.
fn arm<'a>(task: &'a TaskReport, name: &str) -> Result<&'a ArmReport, Measured> {
    let arm = task.arms.iter().find(|arm| arm.name == name);
    arm.ok_or_else(|| missing(&format!("{name} has no finished run")))
}

/// The ratio of the mean step times over the seeds, each arm at its own learning rate.
fn speed(_: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let ratio = full.cost.step_seconds.mean / bitfit.cost.step_seconds.mean;
    Measured {
        text: format!("{} times as fast per step", digits(ratio, 3)),
        value: Some(ratio),
        holds: Some(ratio >= 5.0),
    }
}

fn memory(_: &TaskReport, bitfit: &ArmReport, full: &ArmReport) -> Measured {
    let of = |arm: &ArmReport| arm.cost.peak_gpu_mib.or(arm.cost.peak_rss_mib);
    let (Some(ours), Some(theirs)) = (of(bitfit), of(full)) else {
        return missing("not measured: no run had a process to itself");
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
        return missing(
            "not computed: a share needs a metric that is positive and better when greater",
        );
    }
    let shares: Vec<f64> = both.iter().map(|(ours, theirs)| ours / theirs).collect();
    let Some(share) = Spread::of(&shares) else {
        return missing("no common seed");
    };
    let tested = paired_t(&shares.iter().map(|share| (*share, 0.95)).collect::<Vec<_>>());
    // If all shares are equal but not 95 %, the test has no p-value, and the mean decides.
    let clear = tested.is_some_and(|test| test.p.is_none_or(|p| p < SIGNIFICANT));
    let shown = with(&share, |share| digits(100.0 * share, 3));
    let shown = format!("{shown} % ({:.4} against {:.4})", bitfit.quality.mean, full.quality.mean);
    if let Some(why) = not_learned(full) {
        let text = format!("{shown}, but {why}, so the share says nothing");
        return Measured { text, value: Some(share.mean), holds: None };
    }
    Measured {
        text: match share.n {
            1 => format!("{shown}, one seed: no verdict"),
            _ if clear => shown,
            _ => format!("{shown}: too close to 95 % to decide with so few seeds"),
        },
        value: Some(share.mean),
        holds: clear.then_some(share.mean >= 0.95),
    }
}

/// Why a share of the quality of `arm` says nothing: with some seeds, the arm is no better than the
/// constant answer. `None` if there is no such seed.
fn not_learned(arm: &ArmReport) -> Option<String> {
    let seeds = arm.by_seed.len();
    let learned = |seed: &SeedReport| seed.constant.as_ref().is_none_or(|beside| beside.learned);
    let failed = arm.by_seed.iter().filter(|seed| !learned(seed)).count();
    let which = match (failed, seeds) {
        (0, _) => return None,
        (_, 1) => String::new(),
        _ => format!(" with {failed} of {seeds} seeds"),
    };
    Some(format!("{} itself is no better than the constant answer{which}", arm.name))
}

fn parameters(bitfit: &ArmReport) -> Measured {
    let share = bitfit.trainable as f64 / bitfit.all.max(1) as f64;
    Measured {
        text: format!("{}, including the head", percent(share)),
        value: Some(share),
        holds: Some((0.0008..=0.001).contains(&share)),
    }
}

fn size(bitfit: &ArmReport) -> Measured {
    let ratio = bitfit.base_bytes as f64 / bitfit.delta_bytes.max(1) as f64;
    let (ours, base) = (bytes(bitfit.delta_bytes as f64), bytes(bitfit.base_bytes as f64));
    Measured {
        text: format!("{ours} instead of {base}, 1/{} of the size", digits(ratio, 3)),
        value: Some(ratio),
        holds: Some(ratio >= 1100.0),
    }
}
