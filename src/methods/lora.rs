//! LoRA (Hu et al., ICLR 2022), as in peft: each target gets two low-rank matrices, which train
//! with the new head. With `bias = "all"`, BitFit's biases train too.

use super::Wrong;
use crate::bounds::{Integer, OutOfBounds, Positive, Probability};
use crate::error::{Error, Result};
use crate::freeze::{FreezePlan, Group, Parameter, Switches};
use crate::models::Architecture;
use crate::nn::LoraShape;
use crate::random::Random;
use crate::task_model::TaskModel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Tensor;

/// The default learning rate: the paper's for RoBERTa on most GLUE tasks.
pub const LEARNING_RATE: f64 = 5e-4;

/// The settings of LoRA, under peft's names and with peft's defaults.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank.
    pub r: i64,
    /// Numerator of the scaling: `B A` is multiplied by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// Dropout probability of the input to LoRA's matrices.
    pub lora_dropout: f64,
    /// The dense layers that get LoRA, by full names or their last parts. If empty, query and
    /// value.
    pub target_modules: Vec<String>,
    /// Which biases train too.
    pub bias: LoraBias,
}

/// Which biases train with LoRA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// The head's biases alone.
    #[default]
    None,
    /// The biases that the `[bitfit]` switches select, by default all.
    All,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: vec![],
            bias: LoraBias::None,
        }
    }
}

/// A rank of LoRA.
pub type Rank = Integer<1, 4096>;

impl LoraConfig {
    pub(super) fn check(&self) -> std::result::Result<(), Wrong> {
        let Self { r, lora_alpha, lora_dropout, target_modules, bias: _ } = self;
        Rank::try_from(*r).map_err(|e| ("method.r", e))?;
        Positive::try_from(*lora_alpha).map_err(|e| ("method.lora_alpha", e))?;
        Probability::try_from(*lora_dropout).map_err(|e| ("method.lora_dropout", e))?;
        if target_modules.iter().any(String::is_empty) {
            let expected = "names of dense layers, such as [\"query\", \"value\"]";
            let found = format!("{target_modules:?}");
            return Err(("method.target_modules", OutOfBounds::new(found, expected)));
        }
        Ok(())
    }

    pub(super) fn settled(&self, architecture: Architecture) -> Self {
        let mut settled = self.clone();
        if settled.target_modules.is_empty() {
            settled.target_modules = architecture.query_and_value().map(str::to_owned).into();
        }
        settled
    }

    /// The factor of the product `B A`.
    pub fn scaling(&self) -> f64 {
        self.lora_alpha / self.r as f64
    }

    pub(super) fn place(&self, model: &mut TaskModel) -> Result<()> {
        let shape = LoraShape { rank: self.r, scaling: self.scaling(), dropout: self.lora_dropout };
        model.place(|layers, root, config| {
            layers.add_lora(root, config, &self.target_modules, shape)
        })
    }

    pub(super) fn plan(
        &self,
        architecture: Architecture,
        shapes: &BTreeMap<String, Vec<i64>>,
        new: &[String],
        switches: &Switches,
    ) -> Result<FreezePlan> {
        match self.bias {
            LoraBias::None => FreezePlan::of(architecture, shapes, new, |parameter| parameter.new),
            LoraBias::All => Ok(FreezePlan::new(architecture, shapes, new, switches)?.with(added)),
        }
    }

    /// The tensors with `scaling B A` added to each target's weight, and without LoRA's matrices.
    pub(super) fn merged(
        &self,
        mut tensors: BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let _guard = tch::no_grad_guard();
        for module in modules(tensors.keys()) {
            let mut take = |leaf: &str| {
                let name = format!("{module}.{leaf}");
                tensors.remove(&name).ok_or_else(|| Error::Bug(format!("no {name}")))
            };
            let (a, b) = (take("lora_A.weight")?, take("lora_B.weight")?);
            let weight = take("weight")?.f_add(&b.f_mm(&a)?.f_mul_scalar(self.scaling())?)?;
            tensors.insert(format!("{module}.weight"), weight);
        }
        Ok(tensors)
    }
}

/// The names of the modules that have LoRA's matrices.
pub fn modules<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    names.filter_map(|name| name.strip_suffix(".lora_A.weight")).map(str::to_owned).collect()
}

fn added(parameter: &Parameter) -> bool {
    parameter.place.group == Group::Lora
}

/// Draws initial values as in peft. `lora_B` is zero, so that nothing is added at first. `lora_A`
/// is uniform between `-1 / sqrt(I)` and `1 / sqrt(I)`, which is `kaiming_uniform_` with
/// `a = sqrt(5)`.
pub(super) fn initial(name: &str, shape: &[i64], random: &mut Random) -> Vec<f32> {
    let count = shape.iter().product::<i64>();
    let bound = 1.0 / (shape.last().copied().unwrap_or(1) as f64).sqrt();
    let a = name.ends_with(".lora_A.weight");
    (0..count).map(|_| if a { (random.between(-bound, bound)) as f32 } else { 0.0 }).collect()
}

impl std::fmt::Display for LoraConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { r, lora_alpha, lora_dropout, target_modules, bias } = self;
        write!(f, "r {r}, lora_alpha {lora_alpha}, lora_dropout {lora_dropout}")?;
        if !target_modules.is_empty() {
            write!(f, ", on {}", target_modules.join(", "))?;
        }
        if *bias == LoraBias::All { write!(f, ", with biases") } else { Ok(()) }
    }
}
