//! Every key with its default, as it is written: the paper's settings, under Hugging Face's names.

use crate::data::{BatchSize, MIN_LENGTH};
use crate::freeze::Term;
use crate::methods::{AdapterConfig, LoraBias};
use crate::models::TaskType;
use crate::nn::{NonLinearity, Precision};
use crate::optim::Course;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A configuration file, as written. Every key has a default but the three paths that only the user knows.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The base.
    pub model: ModelSection,
    /// The method.
    pub method: MethodSection,
    /// Of BitFit, what trains.
    pub bitfit: BitfitSection,
    /// What it learns from.
    pub data: DataSection,
    /// How.
    pub training: TrainingSection,
}

/// `[model]`: the base, and what is learned.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The base: a directory in Hugging Face layout, or the id of a model on the Hub.
    pub model_name_or_path: PathBuf,
    /// Of a model on the Hub: a branch, a tag or a commit; by default the newest of `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its weight file's name, or its index's; by default the first of `model.ot`, `model.safetensors`, `pytorch_model.bin`, which must agree (of the Hub, safetensors first).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// A delta, or a plain safetensors file under Hugging Face's names, to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_delta: Option<PathBuf>,
    /// What is learned of a text.
    pub task_type: TaskType,
    /// Number of classes; labels are then 0 to `num_labels` - 1 where no `label_names` are given; by default the labels in the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub num_labels: Option<usize>,
    /// Class names by number. With them the labels of a file may be the names or, where no name is a number, the numbers; labels such as
    /// `NA` can be classes; and a list of 0 and 1 has 0 or 1 for each; by default the labels in the data, sorted, or in the order that a
    /// Parquet file of the Hub says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "uniqueItems" = true))]
    pub label_names: Option<Vec<String>>,
    /// Dropout after the embeddings and before each residual; by default the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub hidden_dropout_prob: Option<f64>,
    /// Dropout of attention probabilities; by default the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub attention_probs_dropout_prob: Option<f64>,
    /// Dropout before the head; by default the base's, and where it has none, `hidden_dropout_prob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub classifier_dropout: Option<f64>,
}

/// The methods by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Biases and the new head.
    #[default]
    Bitfit,
    /// Everything.
    Full,
    /// Low-rank additions, with the new head.
    Lora,
    /// Bottlenecks, with the new head.
    Adapter,
    /// The new head alone.
    Head,
    /// Every LayerNorm, with the new head.
    LayerNorm,
}

/// `[method]`: how it trains; keys that are not the chosen method's have no effect, so they are refused.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MethodSection {
    /// What is trained, and how.
    pub name: MethodName,
    /// LoRA's rank; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 4096))]
    pub r: Option<i64>,
    /// What LoRA adds is scaled by `lora_alpha / r`; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lora_alpha: Option<f64>,
    /// Dropout of what LoRA's matrices read; by default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub lora_dropout: Option<f64>,
    /// The dense layers that LoRA adds to; by default query and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Vec<String>>,
    /// Which biases train with LoRA; by default `"none"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<LoraBias>,
    /// Where adapters are; by default `"pfeiffer"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<AdapterConfig>,
    /// The hidden size over an adapter's; by default 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0.0625))]
    pub reduction_factor: Option<f64>,
    /// What lies between an adapter's two dense layers; by default `"relu"` of `"pfeiffer"`, `"swish"` of `"houlsby"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_linearity: Option<NonLinearity>,
}

/// `[bitfit]`: what trains.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BitfitSection {
    /// Only true: training weights is another method.
    #[schemars(extend("const" = true))]
    pub freeze_all_weights: bool,
    /// Only true.
    #[schemars(extend("const" = true))]
    pub train_bias_only: bool,
    /// The rate of the encoder's biases; by default `training.learning_rate`, which is then the head's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub bias_learning_rate: Option<f64>,
    /// The rate of the attention's biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub attention_learning_rate: Option<f64>,
    /// The rate of the feedforward's biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub feedforward_learning_rate: Option<f64>,
    /// The rate of the LayerNorms' biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub layer_norm_learning_rate: Option<f64>,
    /// The rate of the pooler's bias; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub other_learning_rate: Option<f64>,
    /// Whether the attention's biases train: query, key, value and output.
    pub train_attention_bias: bool,
    /// Whether the feedforward's biases train: both dense layers.
    pub train_feedforward_bias: bool,
    /// Whether every LayerNorm's bias trains, the embeddings' included.
    pub train_layer_norm_bias: bool,
    /// Whether the head's biases train.
    pub train_classifier_bias: bool,
    /// Whether the pooler's bias trains (BERT).
    pub train_other_bias: bool,
    /// Whether the head's weight trains: random at first, and in no base; false is strictly biases.
    pub train_classifier_weight: bool,
    /// Whether the key's bias trains, whose gradient is zero but for rounding.
    pub train_key_bias: bool,
    /// Of the encoder's biases, those that train if their group does: the paper's subsets; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_terms: Option<Vec<Term>>,
    /// The layers whose biases train, counted from 0: `"8-11"`, `"0,2"`, `"6-"`, `"-3"`; by default all, and the embeddings' LayerNorm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// Biases that train in any case: regular expressions over whole names.
    pub include: Vec<String>,
    /// Biases that do not, after `include`: regular expressions over whole names, such as `".*\\.key\\.bias"`.
    pub exclude: Vec<String>,
    /// Of the encoder's biases that the keys above leave, only so many entries train, or a little fewer: whole biases, drawn by `training.seed`;
    /// by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_biases: Option<u64>,
}

/// `[data]`: what it learns from.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// The training rows: a `.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`, a folder of class folders or of a split's Parquet files, or the id
    /// of a data set on the Hub.
    pub train: PathBuf,
    /// The evaluation rows, in the same forms; by default `eval_fraction` of the training rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// Of a data set on the Hub: a branch, a tag or a commit; by default the newest of `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The subset of a data set on the Hub; by default the only one, or the one called `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Of a data set on the Hub: the split to train on; by default `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_split: Option<String>,
    /// Of a data set on the Hub: the split to evaluate on; by default `validation`, or else `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_split: Option<String>,
    /// The share of training rows, drawn by class, that is kept for evaluation where there is no `eval`.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub eval_fraction: f64,
    /// How many of the training rows are used, drawn so that classes keep their shares; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1))]
    pub train_samples: Option<usize>,
    /// How many of the evaluation rows are used, drawn likewise; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1))]
    pub eval_samples: Option<usize>,
    /// Seed of the rows that are drawn and of the split: a number keeps them the same over seeds; by default `training.seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether the first line of a CSV or TSV names the columns; if not, they are named by number, from 1.
    pub header: bool,
    /// What stands between the columns of a CSV, one character; by default a comma, semicolon, tab or bar, as its first lines show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether a row with something wrong in it, its label included, is left out, with a warning, instead of ending the run. A file that is
    /// not UTF-8 or has a quote out of place ends it all the same.
    pub skip_bad_rows: bool,
    /// The column or field of the text.
    pub text_column: String,
    /// The column of the second text, where there are pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair_column: Option<String>,
    /// The column of the label, or of the labels.
    pub label_column: String,
    /// What stands between several labels of a row (`multi_label`); in JSON and Parquet they may be a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1))]
    pub label_separator: Option<String>,
    /// Instead of `label_column`, of several labels (`multi_label`): a column of 0 or 1 for each label, named by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "uniqueItems" = true))]
    pub label_columns: Option<Vec<String>>,
    /// Whether each epoch has another order.
    pub shuffle: bool,
    /// Tokens that a text is cut to, special tokens included; at most what the base has places for.
    #[schemars(extend("minimum" = MIN_LENGTH))]
    pub max_length: usize,
}

/// When to evaluate or save.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Every `eval_steps` steps to evaluate, every `save_steps` to save.
    #[default]
    Steps,
    /// At the end of each epoch.
    Epoch,
    /// Never on the way.
    No,
}

/// What decides which evaluation is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of rows predicted right; with several labels, in all of them.
    Accuracy,
    /// F1 of class 1 where there are two classes, the mean over classes otherwise.
    F1,
    /// F1 over all decisions together.
    F1Micro,
    /// The mean of the classes' F1.
    F1Macro,
    /// Matthews correlation.
    Matthews,
    /// Pearson correlation.
    Pearson,
    /// Spearman's rank correlation.
    Spearman,
    /// Mean squared error.
    Mse,
    /// Mean absolute error.
    Mae,
    /// Mean loss.
    Loss,
}

impl Metric {
    /// Its name in metrics files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::F1Micro => "f1_micro",
            Metric::F1Macro => "f1_macro",
            Metric::Pearson => "pearson",
            Metric::Spearman => "spearman",
            Metric::Mse => "mse",
            Metric::Mae => "mae",
            Metric::Matthews => "matthews",
            Metric::Loss => "loss",
        }
    }

    /// Whether less of it is better.
    pub fn is_error(self) -> bool {
        matches!(self, Metric::Loss | Metric::Mse | Metric::Mae)
    }

    /// Those that a task has, the default first.
    pub fn of(task: TaskType) -> &'static [Metric] {
        use Metric::*;
        match task {
            TaskType::Classification => &[Accuracy, F1, F1Micro, F1Macro, Matthews, Loss],
            TaskType::MultiLabel => &[F1Micro, F1Macro, Accuracy, Loss],
            TaskType::Regression => &[Pearson, Spearman, Mse, Mae, Loss],
        }
    }
}

/// How much each class counts in the loss of a training.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"balanced\", a list of numbers, or a table of a number for each label"
)]
pub enum ClassWeights {
    /// By how rare it is among the training rows.
    Named(Balanced),
    /// By class number.
    List(Vec<f64>),
    /// By label; 1 for those that are not named.
    Table(BTreeMap<String, f64>),
}

/// The one name of class weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balanced {
    /// Rows / (classes x rows of the class), as scikit-learn's `class_weight`; with several labels, rows without it / rows with it.
    Balanced,
}

/// `[training]`: the keys of Hugging Face's `TrainingArguments`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSection {
    /// The run directory.
    pub output_dir: PathBuf,
    /// Passes over the training rows.
    #[schemars(extend("minimum" = 1))]
    pub num_train_epochs: u64,
    /// Steps of the run; where it is positive, instead of `num_train_epochs`.
    pub max_steps: i64,
    /// Rows that are computed at once.
    #[schemars(extend("minimum" = 1))]
    pub per_device_train_batch_size: usize,
    /// Instead of rows: as many of them, in the epoch's order, as have so many tokens together, `data.max_length` or more; steps then cost about the
    /// same whatever the texts' lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = MIN_LENGTH))]
    pub max_tokens_per_batch: Option<usize>,
    /// How many batches make a step: their gradients are added up, so that less memory gives the same numbers. An epoch's last step takes what
    /// is left, and
    /// counts it right.
    #[schemars(extend("minimum" = 1))]
    pub gradient_accumulation_steps: usize,
    /// Rows in a batch when evaluating; short ones go together up to 2,048 tokens.
    #[schemars(extend("minimum" = 1))]
    pub per_device_eval_batch_size: usize,
    /// AdamW's rate; by default the method's: 1e-3 of BitFit, the head and the LayerNorms, 5e-5 of full, 5e-4 of LoRA, 1e-4 of adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: Option<f64>,
    /// How the rate goes on after the warm-up.
    pub lr_scheduler_type: Course,
    /// Steps in which the rate rises from zero; where it is 0, `warmup_ratio` says.
    pub warmup_steps: u64,
    /// The steps in which the rate rises, as a share of all.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub warmup_ratio: f64,
    /// Of a classification, the share of each target that is spread over all classes; evaluations measure the loss without it.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub label_smoothing_factor: f64,
    /// How much each class counts in the loss: `"balanced"`, a list by class number, or a table by label; with several labels, how much having
    /// one counts. `"balanced"` is rows / (classes x rows of the class), with several labels rows without it / rows with it; labels that a
    /// table does not name count 1. Evaluations do without it; by default all the same; a regression has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// AdamW's weight decay.
    #[schemars(extend("minimum" = 0))]
    pub weight_decay: f64,
    /// AdamW's beta 1.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub adam_beta1: f64,
    /// AdamW's beta 2.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub adam_beta2: f64,
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_epsilon: f64,
    /// The gradient's norm is clipped to this; 0: never.
    #[schemars(extend("minimum" = 0))]
    pub max_grad_norm: f64,
    /// Seed of the new head, the order of the rows, dropout and the split.
    pub seed: u64,
    /// When to evaluate; a run always ends with an evaluation.
    pub eval_strategy: Interval,
    /// Steps between evaluations.
    #[schemars(extend("minimum" = 1))]
    pub eval_steps: u64,
    /// When to save the state of the run under `checkpoints/`.
    pub save_strategy: Interval,
    /// Steps between saves.
    #[schemars(extend("minimum" = 1))]
    pub save_steps: u64,
    /// The newest checkpoints that are kept.
    #[schemars(extend("minimum" = 1))]
    pub save_total_limit: usize,
    /// Steps between lines of the log.
    #[schemars(extend("minimum" = 1))]
    pub logging_steps: u64,
    /// Whether `delta.safetensors` is the best evaluated, or the last.
    pub load_best_model_at_end: bool,
    /// The metric by which the best state is chosen; by default the task's first: accuracy, f1_micro or pearson. docs/formats.md has each task's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_for_best_model: Option<Metric>,
    /// Whether more of that metric is better; by default true, and false for errors and the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// The run ends after so many evaluations in a row that gained nothing; by default never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1))]
    pub early_stopping_patience: Option<u64>,
    /// What the metric must gain to count.
    #[schemars(extend("minimum" = 0))]
    pub early_stopping_threshold: f64,
    /// Whether a step keeps only what goes into each layer, and computes the rest again in backward: less memory, more time.
    pub gradient_checkpointing: bool,
    /// Whether the output of the lowest layers, where nothing in them trains, is computed once for each training row, without dropout.
    pub cache_frozen_layers: bool,
    /// Of `cache_frozen_layers`, how much is kept in memory, in MiB.
    pub cache_memory_mib: u64,
    /// Of what does not fit there, how much is kept on the disk of `output_dir`, in MiB.
    pub cache_disk_mib: u64,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[schemars(extend("pattern" = "^(auto|cpu|cuda(:[0-9]+)?)$"))]
    pub device: String,
    /// What products with frozen weights are made in. What trains is fp32 in any case.
    pub precision: Precision,
    /// Whether fp32 products on CUDA devices may round their factors to TF32's 10 bits.
    pub tf32: bool,
}

impl TrainingSection {
    /// What is computed at once.
    pub fn batch_size(&self) -> BatchSize {
        let rows = BatchSize::Rows(self.per_device_train_batch_size);
        self.max_tokens_per_batch.map_or(rows, BatchSize::Tokens)
    }
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            model_name_or_path: PathBuf::new(),
            revision: None,
            weights: None,
            init_delta: None,
            task_type: TaskType::Classification,
            num_labels: None,
            label_names: None,
            hidden_dropout_prob: None,
            attention_probs_dropout_prob: None,
            classifier_dropout: None,
        }
    }
}

impl Default for BitfitSection {
    fn default() -> Self {
        Self {
            freeze_all_weights: true,
            train_bias_only: true,
            bias_learning_rate: None,
            attention_learning_rate: None,
            feedforward_learning_rate: None,
            layer_norm_learning_rate: None,
            other_learning_rate: None,
            train_attention_bias: true,
            train_feedforward_bias: true,
            train_layer_norm_bias: true,
            train_classifier_bias: true,
            train_other_bias: true,
            train_classifier_weight: true,
            train_key_bias: true,
            bias_terms: None,
            layers: None,
            include: vec![],
            exclude: vec![],
            random_biases: None,
        }
    }
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            train: PathBuf::new(),
            eval: None,
            revision: None,
            subset: None,
            train_split: None,
            eval_split: None,
            eval_fraction: 0.1,
            train_samples: None,
            eval_samples: None,
            seed: None,
            header: true,
            delimiter: None,
            skip_bad_rows: false,
            text_column: "text".into(),
            text_pair_column: None,
            label_column: "label".into(),
            label_separator: None,
            label_columns: None,
            shuffle: true,
            max_length: 128,
        }
    }
}

impl Default for TrainingSection {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::new(),
            num_train_epochs: 3,
            max_steps: -1,
            per_device_train_batch_size: 16,
            max_tokens_per_batch: None,
            gradient_accumulation_steps: 1,
            per_device_eval_batch_size: 32,
            learning_rate: None,
            lr_scheduler_type: Course::Constant,
            warmup_steps: 0,
            warmup_ratio: 0.0,
            label_smoothing_factor: 0.0,
            class_weights: None,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 42,
            eval_strategy: Interval::Steps,
            eval_steps: 100,
            save_strategy: Interval::Steps,
            save_steps: 100,
            save_total_limit: 2,
            logging_steps: 50,
            load_best_model_at_end: true,
            metric_for_best_model: None,
            greater_is_better: None,
            early_stopping_patience: None,
            early_stopping_threshold: 0.0,
            gradient_checkpointing: false,
            cache_frozen_layers: false,
            cache_memory_mib: 1024,
            cache_disk_mib: 4096,
            device: "auto".into(),
            precision: Precision::Fp32,
            tf32: false,
        }
    }
}
