//! Which tensors train: bias groups by anchored regexes over canonical names, the freeze plan, and what it costs.

use crate::error::{Error, Result};
use regex::{Regex, RegexSet};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::nn;

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
}

/// Patterns over whole names for each group. Anchored, so that `output` is not `attention.output`, and LayerNorm is itself alone.
const GROUPS: [(Group, &str); 9] = [
    (
        Group::Embeddings,
        r"^(bert|roberta|distilbert)\.embeddings\.(word|position|token_type)_embeddings\.weight$",
    ),
    (
        Group::Attention,
        r"^(bert|roberta)\.encoder\.layer\.\d+\.attention\.(self\.(query|key|value)|output\.dense)\.(weight|bias)$",
    ),
    (
        Group::Attention,
        r"^distilbert\.transformer\.layer\.\d+\.attention\.(q|k|v|out)_lin\.(weight|bias)$",
    ),
    (
        Group::Feedforward,
        r"^(bert|roberta)\.encoder\.layer\.\d+\.(intermediate|output)\.dense\.(weight|bias)$",
    ),
    (Group::Feedforward, r"^distilbert\.transformer\.layer\.\d+\.ffn\.lin[12]\.(weight|bias)$"),
    (
        Group::LayerNorm,
        r"^(bert|roberta)\.(embeddings|encoder\.layer\.\d+\.(attention\.)?output)\.LayerNorm\.(weight|bias)$",
    ),
    (
        Group::LayerNorm,
        r"^distilbert\.(embeddings\.LayerNorm|transformer\.layer\.\d+\.(sa|output)_layer_norm)\.(weight|bias)$",
    ),
    (Group::Classifier, r"^(pre_classifier|classifier(\.(dense|out_proj))?)\.(weight|bias)$"),
    (Group::Other, r"^bert\.pooler\.dense\.(weight|bias)$"),
];

impl Group {
    /// All groups, as they are printed.
    pub const ALL: [Group; 6] = [
        Group::Embeddings,
        Group::Attention,
        Group::Feedforward,
        Group::LayerNorm,
        Group::Classifier,
        Group::Other,
    ];

    /// The group of a parameter, by its canonical name.
    pub fn of(name: &str) -> Result<Group> {
        static PATTERNS: std::sync::OnceLock<Option<RegexSet>> = std::sync::OnceLock::new();
        let set = PATTERNS
            .get_or_init(|| RegexSet::new(GROUPS.map(|(_, pattern)| pattern)).ok())
            .as_ref()
            .ok_or_else(|| Error::Bug("the group patterns do not compile".into()))?;
        let matched: Vec<_> = set.matches(name).into_iter().collect();
        match matched[..] {
            [index] => Ok(GROUPS[index].0),
            _ => Err(Error::Bug(format!(
                "parameter {name} is in {} groups, expected one",
                matched.len()
            ))),
        }
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
        }
    }
}

/// What the configuration's switches say.
#[derive(Debug, Clone)]
pub struct Switches {
    /// The groups whose biases train.
    pub biases: BTreeSet<Group>,
    /// Whether the head's weights train too.
    pub classifier_weight: bool,
    /// Biases that train whatever their group: anchored regexes over canonical names.
    pub include: Vec<String>,
    /// Biases that do not: anchored regexes, after `include`.
    pub exclude: Vec<String>,
}

impl Default for Switches {
    /// The paper's setting: every bias, and the whole new head.
    fn default() -> Self {
        Self {
            biases: Group::ALL.into(),
            classifier_weight: true,
            include: vec![],
            exclude: vec![],
        }
    }
}

/// A parameter of the model and whether it trains.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// The canonical name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its group.
    pub group: Group,
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
    /// Decides for the parameters `shapes`, of which the base lacks those in `new`.
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
        let mut parameters = Vec::with_capacity(shapes.len());
        for (name, shape) in shapes {
            let group = Group::of(name)?;
            let mut parameter = Parameter {
                name: name.clone(),
                shape: shape.clone(),
                group,
                new: new.contains(name),
                trains: false,
            };
            parameter.trains = if parameter.is_bias() {
                let chosen = switches.biases.contains(&group)
                    || include.iter().any(|(r, _)| r.is_match(name));
                chosen && !exclude.iter().any(|(r, _)| r.is_match(name))
            } else {
                let switch = if group == Group::Classifier {
                    switches.classifier_weight
                } else {
                    switches.biases.contains(&group)
                };
                parameter.new && switch
            };
            parameters.push(parameter);
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
        let plan = Self { parameters };
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

    /// The counts of the whole model and of each group.
    pub fn counts(&self) -> Counts {
        let count = |keep: &dyn Fn(&Parameter) -> bool| -> u64 {
            self.parameters.iter().filter(|p| keep(p)).map(Parameter::numel).sum()
        };
        let groups = Group::ALL.map(|group| GroupCounts {
            group,
            bias: count(&|p| p.group == group && p.is_bias()),
            weight: count(&|p| p.group == group && !p.is_bias()),
            trainable: count(&|p| p.group == group && p.trains),
        });
        let (all, trainable) = (count(&|_| true), count(&|p| p.trains));
        let bias = count(&|p| p.is_bias());
        Counts {
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
            full_training_bytes: TRAINING_BYTES * all,
            groups: groups.to_vec(),
        }
    }
}

/// Bytes that AdamW needs for a trained parameter besides its value, in fp32: gradient and two moments.
const TRAINING_BYTES: u64 = 12;

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

/// Parameter counts.
#[derive(Debug, Clone, Serialize)]
pub struct Counts {
    /// Every parameter.
    pub all: u64,
    /// Those that train.
    pub trainable: u64,
    /// Those that do not.
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
    /// Bytes of gradient and AdamW moments, fp32.
    pub training_bytes: u64,
    /// The same when everything trains.
    pub full_training_bytes: u64,
    /// By group.
    pub groups: Vec<GroupCounts>,
}

/// Parameter counts of a group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupCounts {
    /// The group.
    pub group: Group,
    /// Its biases.
    pub bias: u64,
    /// Its weights.
    pub weight: u64,
    /// What trains of both.
    pub trainable: u64,
}

impl std::fmt::Display for Counts {
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
        writeln!(
            f,
            "trainable    {trainable} of {} ({:.3} %; 1 in {:.0}): {} biases, {} weights; frozen {}",
            thousands(self.all),
            100.0 * self.share,
            self.reduction,
            thousands(self.trainable_bias),
            thousands(self.trainable_weight),
            thousands(self.frozen),
        )?;
        write!(
            f,
            "gradient and AdamW moments {}, against {} of full fine-tuning: {} saved (weights and activations come on top)",
            bytes(self.training_bytes),
            bytes(self.full_training_bytes),
            bytes(self.full_training_bytes - self.training_bytes),
        )
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(count: u64) -> String {
    match count as f64 {
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// Where each trained tensor lies in one flat vector.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Name, offset in elements, number of elements; sorted by name.
    pub pieces: Vec<(String, i64, i64)>,
    /// Length of the vector in elements, padding included.
    pub length: i64,
}

impl Layout {
    /// Lays out `parameters` in their order, each piece aligned to 64 bytes of fp32.
    pub fn new<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> Self {
        let mut layout = Self { pieces: vec![], length: 0 };
        for parameter in parameters {
            let count = parameter.shape.iter().product();
            layout.pieces.push((parameter.name.clone(), layout.length, count));
            layout.length += (count + 15) / 16 * 16;
        }
        layout
    }
}
