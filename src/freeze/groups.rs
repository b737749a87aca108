//! The group and the place of each parameter, found by anchored regular expressions over canonical
//! names, which are made from the architecture's spec.

use crate::error::{Error, Result};
use crate::models::{Architecture, Term};
use regex::{RegexSet, escape};
use serde::Serialize;

/// The part of the model that a parameter belongs to. Each parameter is in exactly one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Lookup tables. They have no bias.
    Embeddings,
    /// Query, key and value projections and the attention's output.
    Attention,
    /// Both dense layers of the feedforward.
    Feedforward,
    /// Every LayerNorm, the embeddings' included.
    LayerNorm,
    /// The new head, its dense layer included.
    Classifier,
    /// BERT's pooler.
    Other,
    /// LoRA's matrices.
    Lora,
    /// Adapters.
    Adapter,
}

/// The group, the term and the layer of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ParameterPlace {
    /// The part of the model.
    pub group: Group,
    /// The place in the encoder. `None` for embedding tables, the pooler and the head.
    pub term: Option<Term>,
    /// The layer, counted from 0. `None` outside the layers.
    pub layer: Option<usize>,
}

/// The places of an architecture's parameters, each with the rule for the canonical names of its
/// parameters.
///
/// The rules are anchored, so that `output` does not match `attention.output`.
#[derive(Debug)]
pub struct Places {
    architecture: Architecture,
    places: Vec<(Group, Option<Term>)>,
    rules: RegexSet,
}

/// The tensors of a dense layer or LayerNorm, of LoRA below a dense layer, and of an adapter.
const OWN: &str = "(weight|bias)";
const LORA: &str = r"lora_[AB]\.weight";
const ADAPTER: &str = r"adapter_(down\.0|up)\.(weight|bias)";

impl Places {
    /// Makes the rules for an architecture.
    pub fn new(architecture: Architecture) -> Result<Self> {
        let (mut places, mut rules) = (vec![], vec![]);
        let mut rule = |group, term, module: &str, tensor: &str| {
            places.push((group, term));
            rules.push(format!(r"^{module}\.{tensor}$"));
        };
        let layers = escape(&architecture.layers_path());
        let in_layer = |module| format!(r"{layers}\.[0-9]+\.{}", escape(module));
        for table in architecture.tables() {
            rule(Group::Embeddings, None, &escape(&table), "weight");
        }
        for term in Term::ALL {
            let module = match architecture.layer.of(term) {
                Some(module) => in_layer(module),
                None => escape(&architecture.module(term, 0)),
            };
            rule(term.group(), Some(term), &module, OWN);
            if !term.is_layer_norm() {
                rule(Group::Lora, Some(term), &module, LORA);
            }
        }
        for (term, adapter) in architecture.layer.adapters() {
            rule(Group::Adapter, Some(term), &in_layer(adapter), ADAPTER);
        }
        if let Some(pooler) = architecture.pooler() {
            rule(Group::Other, None, &escape(pooler), OWN);
            rule(Group::Lora, None, &escape(pooler), LORA);
        }
        for module in architecture.new_modules() {
            rule(Group::Classifier, None, &escape(module), OWN);
        }
        let rules = RegexSet::new(rules).map_err(|e| Error::Bug(e.to_string()))?;
        Ok(Self { architecture, places, rules })
    }

    /// The place of a parameter, by its canonical name. Returns an error unless the name is in
    /// exactly one group.
    pub fn of(&self, name: &str) -> Result<ParameterPlace> {
        let matched = self.rules.matches(name).into_iter();
        let matched: Vec<_> = matched.filter_map(|index| self.places.get(index)).collect();
        let [&(group, term)] = matched[..] else {
            let count = matched.len();
            return Err(Error::Bug(format!("parameter {name} is in {count} groups, expected one")));
        };
        Ok(ParameterPlace { group, term, layer: self.architecture.layer_of(name) })
    }
}

impl Group {
    /// All groups, in the order of printing.
    pub const ALL: [Group; 8] = [
        Group::Embeddings,
        Group::Attention,
        Group::Feedforward,
        Group::LayerNorm,
        Group::Classifier,
        Group::Other,
        Group::Lora,
        Group::Adapter,
    ];

    /// Whether a method adds this group's parameters. Most models have none of them.
    pub fn is_added(self) -> bool {
        matches!(self, Group::Lora | Group::Adapter)
    }

    /// The name used in configurations and output.
    pub fn name(self) -> &'static str {
        match self {
            Group::Embeddings => "embeddings",
            Group::Attention => "attention",
            Group::Feedforward => "feedforward",
            Group::LayerNorm => "layer_norm",
            Group::Classifier => "classifier",
            Group::Other => "other",
            Group::Lora => "lora",
            Group::Adapter => "adapter",
        }
    }
}

impl Term {
    /// The group of the term.
    pub fn group(self) -> Group {
        match self {
            Term::Query | Term::Key | Term::Value | Term::AttentionOutput => Group::Attention,
            Term::Intermediate | Term::Output => Group::Feedforward,
            Term::AttentionLayerNorm | Term::OutputLayerNorm | Term::EmbeddingsLayerNorm => {
                Group::LayerNorm
            }
        }
    }
}
