//! The group and the place of each parameter, found by anchored regular expressions over canonical
//! names.

use crate::error::{Error, Result};
use regex::{Regex, RegexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

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

/// The places of the encoder's biases in a layer, by which the paper selects subsets of them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Bias of the query projection.
    Query,
    /// Bias of the key projection. Its gradient is zero up to rounding.
    Key,
    /// Bias of the value projection.
    Value,
    /// Bias of the dense layer after attention.
    AttentionOutput,
    /// Bias of the LayerNorm after attention.
    AttentionLayerNorm,
    /// Bias of the feedforward's first dense layer.
    Intermediate,
    /// Bias of the feedforward's second dense layer.
    Output,
    /// Bias of the LayerNorm after the feedforward.
    OutputLayerNorm,
    /// Bias of the LayerNorm after the embeddings, which is in no layer.
    EmbeddingsLayerNorm,
}

/// The group, the term and the layer of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The part of the model.
    pub group: Group,
    /// The place in the encoder. `None` for embedding tables, the pooler and the head.
    pub term: Option<Term>,
    /// The layer, counted from 0. `None` outside the layers.
    pub layer: Option<usize>,
}

/// The module of each term in a layer: the name in BERT and RoBERTa, then in DistilBERT.
const MODULES: [(Term, &str, &str); 8] = [
    (Term::Query, r"attention\.self\.query", r"attention\.q_lin"),
    (Term::Key, r"attention\.self\.key", r"attention\.k_lin"),
    (Term::Value, r"attention\.self\.value", r"attention\.v_lin"),
    (Term::AttentionOutput, r"attention\.output\.dense", r"attention\.out_lin"),
    (Term::AttentionLayerNorm, r"attention\.output\.LayerNorm", "sa_layer_norm"),
    (Term::Intermediate, r"intermediate\.dense", r"ffn\.lin1"),
    (Term::Output, r"output\.dense", r"ffn\.lin2"),
    (Term::OutputLayerNorm, r"output\.LayerNorm", "output_layer_norm"),
];

/// The modules that hold adapters: the name in BERT and RoBERTa, then in DistilBERT.
const ADAPTERS: [(Term, &str, &str); 2] = [
    (Term::AttentionOutput, r"attention\.output", "attention_adapters"),
    (Term::Output, "output", "output_adapters"),
];

/// The pattern of LoRA's tensor names below a dense layer.
const LORA: &str = r"lora_[AB]\.weight";

/// The pattern of a module's full name in any layer, from its names below a layer.
fn in_layer(bert: &str, distilbert: &str) -> String {
    let bert = format!(r"(bert|roberta)\.encoder\.layer\.\d+\.{bert}");
    format!(r"({bert}|distilbert\.transformer\.layer\.\d+\.{distilbert})")
}

/// All places, each with the pattern of its parameters' full names. The patterns are anchored, so
/// that `output` does not match `attention.output`, and `LayerNorm` matches itself alone.
struct Patterns {
    places: Vec<(Group, Option<Term>)>,
    names: RegexSet,
    layer: Regex,
}

impl Patterns {
    fn new() -> std::result::Result<Self, regex::Error> {
        let embeddings = Term::EmbeddingsLayerNorm;
        let mut patterns = vec![
            (
                (Group::Embeddings, None),
                r"(bert|roberta|distilbert)\.embeddings\.(word|position|token_type)_embeddings\.weight".to_owned(),
            ),
            (
                (embeddings.group(), Some(embeddings)),
                r"(bert|roberta|distilbert)\.embeddings\.LayerNorm\.(weight|bias)".into(),
            ),
            (
                (Group::Classifier, None),
                r"(pre_classifier|classifier(\.(dense|out_proj))?)\.(weight|bias)".into(),
            ),
            ((Group::Other, None), r"bert\.pooler\.dense\.(weight|bias)".into()),
        ];
        patterns.extend(MODULES.map(|(term, bert, distilbert)| {
            ((term.group(), Some(term)), format!(r"{}\.(weight|bias)", in_layer(bert, distilbert)))
        }));
        patterns.extend(MODULES.map(|(term, bert, distilbert)| {
            ((Group::Lora, Some(term)), format!(r"{}\.{LORA}", in_layer(bert, distilbert)))
        }));
        patterns.push(((Group::Lora, None), format!(r"bert\.pooler\.dense\.{LORA}")));
        patterns.extend(ADAPTERS.map(|(term, bert, distilbert)| {
            let tensor = r"adapters\.task\.adapter_(down\.0|up)\.(weight|bias)";
            ((Group::Adapter, Some(term)), format!(r"{}\.{tensor}", in_layer(bert, distilbert)))
        }));
        let (places, patterns): (Vec<_>, Vec<String>) = patterns.into_iter().unzip();
        Ok(Self {
            places,
            names: RegexSet::new(patterns.iter().map(|pattern| format!("^(?:{pattern})$")))?,
            layer: Regex::new(r"\.layer\.(\d+)\.")?,
        })
    }
}

impl Place {
    /// The place of a parameter, by its canonical name. Returns an error unless the name is in
    /// exactly one group.
    pub fn of(name: &str) -> Result<Self> {
        static PATTERNS: OnceLock<Option<Patterns>> = OnceLock::new();
        let patterns = PATTERNS
            .get_or_init(|| Patterns::new().ok())
            .as_ref()
            .ok_or_else(|| Error::Bug("the group patterns do not compile".into()))?;
        let matched = patterns.names.matches(name).into_iter();
        let matched: Vec<_> = matched.filter_map(|index| patterns.places.get(index)).collect();
        let [&(group, term)] = matched[..] else {
            let count = matched.len();
            return Err(Error::Bug(format!("parameter {name} is in {count} groups, expected one")));
        };
        let layer = patterns.layer.captures(name);
        let layer = layer.and_then(|found| found.get(1)?.as_str().parse().ok());
        Ok(Self { group, term, layer })
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

    /// The group of a parameter, by its canonical name. Returns an error as [`Place::of`] does.
    pub fn of(name: &str) -> Result<Group> {
        Ok(Place::of(name)?.group)
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
    /// All terms, in the order of the computation.
    pub const ALL: [Term; 9] = [
        Term::EmbeddingsLayerNorm,
        Term::Query,
        Term::Key,
        Term::Value,
        Term::AttentionOutput,
        Term::AttentionLayerNorm,
        Term::Intermediate,
        Term::Output,
        Term::OutputLayerNorm,
    ];

    /// The name used in configurations and output.
    pub fn name(self) -> &'static str {
        match self {
            Term::Query => "query",
            Term::Key => "key",
            Term::Value => "value",
            Term::AttentionOutput => "attention_output",
            Term::AttentionLayerNorm => "attention_layer_norm",
            Term::Intermediate => "intermediate",
            Term::Output => "output",
            Term::OutputLayerNorm => "output_layer_norm",
            Term::EmbeddingsLayerNorm => "embeddings_layer_norm",
        }
    }

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

/// A set of layers by number, from 0: `4-5`, `0,2,6-` or `-3`. Ranges include both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<(usize, Option<usize>)>);

impl Layers {
    /// The syntax that [`Layers::parse`] accepts, for error messages.
    pub const SYNTAX: &str = "layers by number, from 0, such as \"4-5\", \"0,2\", \"6-\" (to the last) or \"-3\" (from the first)";

    /// Parses a comma-separated list of numbers and ranges. Returns `None` if `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let part = |part: &str| match part.trim().split_once('-') {
            None => number(part).map(|n| (n, Some(n))),
            Some(("", "")) => None,
            Some(("", last)) => number(last).map(|last| (0, Some(last))),
            Some((first, "")) => number(first).map(|first| (first, None)),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Some((first, Some(last))),
                _ => None,
            },
        };
        text.split(',').map(part).collect::<Option<_>>().map(Self)
    }

    /// Whether the set contains `layer`.
    pub fn contains(&self, layer: usize) -> bool {
        self.0.iter().any(|&(first, last)| layer >= first && last.is_none_or(|last| layer <= last))
    }

    /// The highest layer number in the text. An open range such as `6-` counts with its first
    /// number.
    pub fn highest(&self) -> usize {
        self.0.iter().map(|&(first, last)| last.unwrap_or(first)).max().unwrap_or(0)
    }
}
