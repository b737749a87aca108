//! Which tensors train: bias groups by anchored regexes over canonical names, the freeze plan, and what it costs.

mod cost;
mod counts;
mod groups;
mod layout;

pub use cost::Cost;
pub use counts::{Counts, GroupCounts, thousands};
pub use groups::{Group, Layers, Place, Term};
pub use layout::Layout;

use crate::error::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use regex::Regex;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::nn;

/// What the configuration's switches say.
#[derive(Debug, Clone)]
pub struct Switches {
    /// The groups whose biases train.
    pub biases: BTreeSet<Group>,
    /// Of the encoder's biases, those that train if their group does.
    pub terms: BTreeSet<Term>,
    /// The layers whose biases train; `None`: all, and the embeddings' LayerNorm, which is in no layer.
    pub layers: Option<Layers>,
    /// Whether the head's weights train too.
    pub classifier_weight: bool,
    /// Biases that train whatever their group: anchored regexes over canonical names.
    pub include: Vec<String>,
    /// Biases that do not: anchored regexes, after `include`.
    pub exclude: Vec<String>,
    /// Of the encoder's biases that all this leaves, so many entries drawn at random by a seed.
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
    /// Whether they turn the bias at `place` on.
    fn chooses(&self, place: Place) -> bool {
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
    pub place: Place,
    /// Whether the base lacks it: the head, or a pooler that the checkpoint does not have.
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
    /// Lets `trains` decide for each of the parameters `shapes`, of which the base lacks those in `new`.
    pub fn of(
        shapes: &BTreeMap<String, Vec<i64>>,
        new: &[String],
        trains: impl Fn(&Parameter) -> bool,
    ) -> Result<Self> {
        let parameter = |(name, shape): (&String, &Vec<i64>)| {
            let mut parameter = Parameter {
                name: name.clone(),
                shape: shape.clone(),
                place: Place::of(name)?,
                new: new.contains(name),
                trains: false,
            };
            parameter.trains = trains(&parameter);
            Ok(parameter)
        };
        Ok(Self { parameters: shapes.iter().map(parameter).collect::<Result<_>>()? })
    }

    /// It with those that `trains` chooses besides.
    pub fn with(mut self, trains: impl Fn(&Parameter) -> bool) -> Self {
        for parameter in &mut self.parameters {
            parameter.trains |= trains(parameter);
        }
        self
    }

    /// Decides, as BitFit does, for the parameters `shapes`, of which the base lacks those in `new`.
    ///
    /// Biases train by their group's switch; a new weight trains too, since it is random: the head's unless
    /// `classifier_weight` is off, a new pooler's with the switch of its bias.
    pub fn new(
        shapes: &BTreeMap<String, Vec<i64>>,
        new: &[String],
        switches: &Switches,
    ) -> Result<Self> {
        let include = anchored("bitfit.include", &switches.include)?;
        let exclude = anchored("bitfit.exclude", &switches.exclude)?;
        let matches = |patterns: &[(Regex, String)], name: &str| {
            patterns.iter().any(|(regex, _)| regex.is_match(name))
        };
        let mut plan = Self::of(shapes, new, |parameter| {
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
                "bitfit.layers: found layer {highest}, and the base has layers 0 to {}",
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
                "[bitfit]: nothing would train; turn one of {switches} on"
            )));
        }
        Ok(plan)
    }

    /// All parameters, sorted by name.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Those that train, sorted by name.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|p| p.trains)
    }

    /// How many of the encoder's lowest layers train nothing, nor the embeddings below them.
    pub fn frozen_layers(&self) -> usize {
        let embeddings = |p: &Parameter| {
            p.place.group == Group::Embeddings || p.place.term == Some(Term::EmbeddingsLayerNorm)
        };
        let lowest = |p: &Parameter| if embeddings(p) { Some(0) } else { p.place.layer };
        let count = self.parameters.iter().filter_map(|p| p.place.layer).max().map_or(0, |l| l + 1);
        self.trainable().filter_map(lowest).min().unwrap_or(count)
    }

    /// Sets `requires_grad` in the store: false everywhere, then true on what trains.
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

/// Leaves whole biases of the encoder, `count` entries or as many below it as whole ones make; which, `seed` alone decides.
fn draw(parameters: &mut [Parameter], count: u64, seed: u64) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<(u64, &mut Parameter)> = parameters
        .iter_mut()
        .filter(|p| p.trains && p.is_bias() && p.place.term.is_some())
        .map(|p| (random.next_u64(), p))
        .collect();
    let sizes = || order.iter().map(|(_, p)| p.numel());
    let (least, most) = (sizes().min().unwrap_or(0), sizes().sum::<u64>());
    if !(least..=most).contains(&count) || count == 0 {
        return Err(Error::Usage(format!(
            "bitfit.random_biases: found {count}, expected {least} to {most}: the encoder's biases that train, drawn whole"
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
