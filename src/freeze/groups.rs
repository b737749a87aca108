//! Where each parameter belongs, by anchored regular expressions over canonical names.

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
    /// What LoRA adds.
    Lora,
    /// Adapters.
    Adapter,
}

/// The encoder's biases by their place in a layer: the paper's subsets.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Of the query projection.
    Query,
    /// Of the key projection. Its gradient is zero but for rounding.
    Key,
    /// Of the value projection.
    Value,
    /// Of the dense layer after attention.
    AttentionOutput,
    /// Of the LayerNorm after attention.
    AttentionLayerNorm,
    /// Of the feedforward's first dense layer.
    Intermediate,
    /// Of the feedforward's second dense layer.
    Output,
    /// Of the LayerNorm after the feedforward.
    OutputLayerNorm,
    /// Of the LayerNorm after the embeddings, which is in no layer.
    EmbeddingsLayerNorm,
}

/// Where a parameter belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The part of the model.
    pub group: Group,
    /// Its place in the encoder; none of lookup tables, pooler and head.
    pub term: Option<Term>,
    /// The layer, counted from 0; none outside the layers.
    pub layer: Option<usize>,
}

/// The module of each term in a layer: of BERT and RoBERTa, and of DistilBERT.
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

/// Where adapters are, likewise.
const ADAPTERS: [(Term, &str, &str); 2] = [
    (Term::AttentionOutput, r"attention\.output", "attention_adapters"),
    (Term::Output, "output", "output_adapters"),
];

/// LoRA's tensors, below a dense layer.
const LORA: &str = r"lora_[AB]\.weight";

/// A pattern of modules, by their names below a layer.
fn in_layer(bert: &str, distilbert: &str) -> String {
    let bert = format!(r"(bert|roberta)\.encoder\.layer\.\d+\.{bert}");
    format!(r"({bert}|distilbert\.transformer\.layer\.\d+\.{distilbert})")
}

/// Every place, with the pattern of its parameters' whole names. Anchored, so that `output` is not `attention.output`, and
/// LayerNorm is itself alone.
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
    /// The place of a parameter, by its canonical name.
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
    /// All groups, as they are printed.
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

    /// Whether it is what a method adds: of most models there is none.
    pub fn is_added(self) -> bool {
        matches!(self, Group::Lora | Group::Adapter)
    }

    /// The group of a parameter, by its canonical name.
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

    /// The group that it is in.
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

/// Layers by number, from 0: `4-5`, `0,2,6-` or `-3`, ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<(usize, Option<usize>)>);

impl Layers {
    /// What [`Layers::parse`] takes, for messages.
    pub const SYNTAX: &str = "layers by number, from 0, such as \"4-5\", \"0,2\", \"6-\" (to the last) or \"-3\" (from the first)";

    /// Reads a list of numbers and ranges.
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

    /// Whether `layer` is one of them.
    pub fn contains(&self, layer: usize) -> bool {
        self.0.iter().any(|&(first, last)| layer >= first && last.is_none_or(|last| layer <= last))
    }

    /// The highest number that is named.
    pub fn highest(&self) -> usize {
        self.0.iter().map(|&(first, last)| last.unwrap_or(first)).max().unwrap_or(0)
    }
}
