//! The choice of the tensors that train: parameter groups, the freeze plan, its counts and its
//! cost.

mod cost;
mod counts;
mod groups;
mod layers;
mod layout;

pub use cost::StepCost;
pub use groups::{Group, ParameterPlace, Places};
pub use layers::Layers;
pub use layout::Layout;

use crate::error::{Error, Result};
use crate::models::{Architecture, Term};
use crate::random::Random;
use regex::Regex;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::nn;

/// The switches of a configuration's `[bitfit]` section.
#[derive(Debug, Clone)]
pub struct Switches {
    /// The groups whose biases train.
    pub biases: BTreeSet<Group>,
    /// The terms whose biases train, if their group is in `biases`.
    pub terms: BTreeSet<Term>,
    /// The layers whose biases train. `None` selects all layers and the embeddings' LayerNorm,
    /// which is in no layer.
    pub layers: Option<Layers>,
    /// Whether the head's weights train too.
    pub classifier_weight: bool,
    /// Biases that train whatever their group: anchored regexes over canonical names.
    pub include: Vec<String>,
    /// Biases that do not train, even if `include` matches them: anchored regexes over canonical
    /// names.
    pub exclude: Vec<String>,
    /// The number of bias elements to draw from the encoder's biases that the other switches
    /// select, and the seed of the draw.
    pub random: Option<(u64, u64)>,
}

impl Default for Switches {
    /// The paper's setting: every bias, and the whole new head.
    fn default() -> Self {
        Self {
            biases: Group::ALL.into(),
            terms: Term::ALL.into(),
            layers: None,
            classifier_weight: true,
            include: vec![],
            exclude: vec![],
            random: None,
        }
    }
}

impl Switches {
    /// Whether the switches turn on the bias at `place`.
    fn chooses(&self, place: ParameterPlace) -> bool {
        let layers = |layers: &Layers| place.layer.is_some_and(|layer| layers.contains(layer));
        self.biases.contains(&place.group)
            && place.term.is_none_or(|term| {
                self.terms.contains(&term) && self.layers.as_ref().is_none_or(layers)
            })
    }
}

/// A parameter of the model and whether it trains.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// The canonical name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its group, place in a layer, and layer.
    #[serde(flatten)]
    pub place: ParameterPlace,
    /// Whether the base lacks the parameter: the head's, a pooler's that is not in the checkpoint,
    /// or one that a method added.
    pub new: bool,
    /// Whether it trains.
    pub trains: bool,
}

impl Parameter {
    /// Whether it is a bias.
    pub fn is_bias(&self) -> bool {
        self.name.ends_with(".bias")
    }

    /// Number of elements.
    pub fn numel(&self) -> u64 {
        self.shape.iter().product::<i64>().unsigned_abs()
    }
}

/// Every parameter of the model, sorted by name, with the decision whether it trains.
#[derive(Debug, Clone)]
pub struct FreezePlan {
    parameters: Vec<Parameter>,
}

impl FreezePlan {
    /// Makes the plan in which `trains` decides for each of the architecture's parameters, which
    /// `shapes` has. `new` names the parameters that the base lacks.
    ///
    /// Returns an error if a parameter is in no group.
    pub fn of(
        architecture: Architecture,
        shapes: &BTreeMap<String, Vec<i64>>,
        new: &[String],
        trains: impl Fn(&Parameter) -> bool,
    ) -> Result<Self> {
        let places = Places::new(architecture)?;
        let parameter = |(name, shape): (&String, &Vec<i64>)| {
            let mut parameter = Parameter {
                name: name.clone(),
                shape: shape.clone(),
                place: places.of(name)?,
                new: new.contains(name),
                trains: false,
            };
            parameter.trains = trains(&parameter);
            Ok(parameter)
        };
        Ok(Self { parameters: shapes.iter().map(parameter).collect::<Result<_>>()? })
    }

    /// Also trains the parameters that `trains` selects.
    pub fn with(mut self, trains: impl Fn(&Parameter) -> bool) -> Self {
        for parameter in &mut self.parameters {
            parameter.trains |= trains(parameter);
        }
        self
    }

    /// Makes BitFit's plan for the architecture's parameters, which `shapes` has. `new` names the
    /// parameters that the base lacks.
    ///
    /// A bias trains if the switches select it. A new weight is random, so it trains too: the
    /// head's unless `classifier_weight` is off, a new pooler's if the switch of its group is on.
    ///
    /// Returns an error if a switch names a layer or a bias that does not exist, if a pattern is
    /// not a regular expression, if the number of random biases is out of range, or if nothing
    /// would train.
    pub fn new(
        architecture: Architecture,
        shapes: &BTreeMap<String, Vec<i64>>,
        new: &[String],
        switches: &Switches,
    ) -> Result<Self> {
        let include = anchored("bitfit.include", &switches.include)?;
        let exclude = anchored("bitfit.exclude", &switches.exclude)?;
        let matches = |patterns: &[(Regex, String)], name: &str| {
            patterns.iter().any(|(regex, _)| regex.is_match(name))
        };
        let mut plan = Self::of(architecture, shapes, new, |parameter| {
            let (group, name) = (parameter.place.group, &parameter.name);
            if parameter.is_bias() {
                let chosen = switches.chooses(parameter.place) || matches(&include, name);
                return chosen && !matches(&exclude, name);
            }
            let switch = match group {
                Group::Classifier => switches.classifier_weight,
                _ => switches.biases.contains(&group),
            };
            parameter.new && switch
        })?;
        let parameters = &plan.parameters;
        let count =
            parameters.iter().filter_map(|p| p.place.layer).max().map_or(0, |last| last + 1);
        if let Some(highest) = switches.layers.as_ref().map(Layers::highest).filter(|l| *l >= count)
        {
            return Err(Error::Usage(format!(
                "bitfit.layers: found layer {highest}, expected layers 0 to {}, which the base has",
                count.saturating_sub(1)
            )));
        }
        for (key, patterns) in [("bitfit.include", &include), ("bitfit.exclude", &exclude)] {
            for (regex, written) in patterns {
                if !parameters.iter().any(|p| p.is_bias() && regex.is_match(&p.name)) {
                    let example = parameters.iter().find(|p| p.is_bias()).map_or("", |p| &p.name);
                    return Err(Error::Usage(format!(
                        "{key}: {written:?} matches no bias; patterns match whole names, such as {example}"
                    )));
                }
            }
        }
        if let Some((count, seed)) = switches.random {
            draw(&mut plan.parameters, count, seed)?;
        }
        if plan.trainable().next().is_none() {
            let switches = "train_attention_bias, train_feedforward_bias, train_layer_norm_bias, train_classifier_bias, \
                            train_other_bias or train_classifier_weight";
            return Err(Error::Usage(format!(
                "[bitfit]: nothing would train; turn on one of {switches}"
            )));
        }
        Ok(plan)
    }

    /// All parameters, sorted by name.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The parameters that train, sorted by name.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|p| p.trains)
    }

    /// Number of the encoder's lowest layers that train nothing; 0 if the embeddings train.
    pub fn frozen_layers(&self) -> usize {
        let embeddings = |p: &Parameter| {
            p.place.group == Group::Embeddings || p.place.term == Some(Term::EmbeddingsLayerNorm)
        };
        let lowest = |p: &Parameter| if embeddings(p) { Some(0) } else { p.place.layer };
        let count = self.parameters.iter().filter_map(|p| p.place.layer).max().map_or(0, |l| l + 1);
        self.trainable().filter_map(lowest).min().unwrap_or(count)
    }

    /// Sets `requires_grad` in the store: true for the parameters that train, false for all others.
    pub fn apply(&self, store: &mut nn::VarStore) -> Result<()> {
        store.freeze();
        let variables = store.variables();
        for parameter in self.trainable() {
            let variable = variables
                .get(&parameter.name)
                .ok_or_else(|| Error::Bug(format!("{} is not in the store", parameter.name)))?;
            let _ = variable.f_set_requires_grad(true)?;
        }
        Ok(())
    }
}

/// Keeps a random selection of the encoder's biases that train, and freezes the rest. The seed
/// alone decides the selection. Biases are kept whole, as far as they fit into `count` elements.
fn draw(parameters: &mut [Parameter], count: u64, seed: u64) -> Result<()> {
    let mut random = Random::new(seed, 0);
    let mut order: Vec<(u64, &mut Parameter)> = parameters
        .iter_mut()
        .filter(|p| p.trains && p.is_bias() && p.place.term.is_some())
        .map(|p| (random.bits(), p))
        .collect();
    let sizes = || order.iter().map(|(_, p)| p.numel());
    let (least, most) = (sizes().min().unwrap_or(0), sizes().sum::<u64>());
    if !(least..=most).contains(&count) || count == 0 {
        return Err(Error::Usage(format!(
            "bitfit.random_biases: found {count}, expected {least} to {most}, from the smallest to all of the encoder's biases that train"
        )));
    }
    order.sort_by_key(|(key, _)| *key);
    let mut left = count;
    for (_, parameter) in order {
        parameter.trains = parameter.numel() <= left;
        left -= if parameter.trains { parameter.numel() } else { 0 };
    }
    Ok(())
}

fn anchored(key: &str, patterns: &[String]) -> Result<Vec<(Regex, String)>> {
    let compile = |written: &String| {
        Regex::new(&format!("^(?:{written})$")).map(|regex| (regex, written.clone())).map_err(|e| {
            Error::Usage(format!(
                "{key}: {written:?} is not a regular expression: {}",
                last_line(&e)
            ))
        })
    };
    patterns.iter().map(compile).collect()
}

fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
