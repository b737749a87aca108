//! Parameter counts by group: all parameters, and those that train.

use super::{FreezePlan, Group, Parameter};
use crate::numbers::{bytes, thousands};
use serde::Serialize;

/// Bytes that AdamW needs for a trained parameter besides its value, in fp32: gradient and two
/// moments.
const TRAINING_BYTES: u64 = 12;

impl FreezePlan {
    /// The counts of the whole model and of each group.
    pub fn counts(&self) -> ParameterCounts {
        let count = |keep: &dyn Fn(&Parameter) -> bool| -> u64 {
            self.parameters.iter().filter(|p| keep(p)).map(Parameter::numel).sum()
        };
        let of_group = |group| GroupCounts {
            group,
            bias: count(&|p| p.place.group == group && p.is_bias()),
            weight: count(&|p| p.place.group == group && !p.is_bias()),
            trainable: count(&|p| p.place.group == group && p.trains),
        };
        let groups = Group::ALL.map(of_group).into_iter();
        let groups = groups.filter(|g| !g.group.is_added() || g.bias + g.weight > 0).collect();
        let own = count(&|p| !p.place.group.is_added());
        let (all, trainable) = (count(&|_| true), count(&|p| p.trains));
        let bias = count(&|p| p.is_bias());
        ParameterCounts {
            all,
            trainable,
            frozen: all - trainable,
            bias,
            weight: all - bias,
            trainable_bias: count(&|p| p.trains && p.is_bias()),
            trainable_weight: count(&|p| p.trains && !p.is_bias()),
            share: trainable as f64 / all as f64,
            reduction: all as f64 / trainable as f64,
            training_bytes: TRAINING_BYTES * trainable,
            full_training_bytes: TRAINING_BYTES * own,
            groups,
        }
    }
}

/// Parameter counts.
#[derive(Debug, Clone, Serialize)]
pub struct ParameterCounts {
    /// Every parameter.
    pub all: u64,
    /// Parameters that train.
    pub trainable: u64,
    /// Parameters that do not train.
    pub frozen: u64,
    /// Biases, trained or not.
    pub bias: u64,
    /// Weights, trained or not.
    pub weight: u64,
    /// Biases that train.
    pub trainable_bias: u64,
    /// Weights that train.
    pub trainable_weight: u64,
    /// `trainable / all`.
    pub share: f64,
    /// `all / trainable`.
    pub reduction: f64,
    /// Bytes of the gradient and the AdamW moments, fp32.
    pub training_bytes: u64,
    /// The same bytes for full fine-tuning, where every parameter trains except those that a method
    /// added.
    pub full_training_bytes: u64,
    /// Counts of each group. LoRA and adapters are listed only if the model has them.
    pub groups: Vec<GroupCounts>,
}

/// Parameter counts of a group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupCounts {
    /// The group.
    pub group: Group,
    /// Number of parameters in biases.
    pub bias: u64,
    /// Number of parameters in weights.
    pub weight: u64,
    /// Number of parameters that train, in biases and weights.
    pub trainable: u64,
}

impl std::fmt::Display for ParameterCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<12} {:>13} {:>13} {:>13}", "group", "biases", "weights", "trainable")?;
        for g in &self.groups {
            let name = g.group.name();
            writeln!(
                f,
                "{name:<12} {:>13} {:>13} {:>13}",
                thousands(g.bias),
                thousands(g.weight),
                thousands(g.trainable)
            )?;
        }
        let (bias, weight, trainable) =
            (thousands(self.bias), thousands(self.weight), thousands(self.trainable));
        writeln!(f, "{:<12} {bias:>13} {weight:>13} {trainable:>13}", "all")?;
        write!(
            f,
            "trainable    {trainable} of {} ({:.3} %; 1 in {:.0}): {} biases, {} weights; frozen {}",
            thousands(self.all),
            100.0 * self.share,
            self.reduction,
            thousands(self.trainable_bias),
            thousands(self.trainable_weight),
            thousands(self.frozen),
        )
    }
}

impl ParameterCounts {
    /// The memory of the gradient and the moments beside that of full fine-tuning, in a line.
    pub fn memory(&self) -> String {
        format!(
            "gradient and AdamW moments {}, against {} for full fine-tuning: {} saved (without weights and activations)",
            bytes(self.training_bytes),
            bytes(self.full_training_bytes),
            bytes(self.full_training_bytes.saturating_sub(self.training_bytes)),
        )
    }
}
