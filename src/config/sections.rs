//! Every key of a configuration file, with its default, under Hugging Face's names. What depends on
//! the data has its default in `auto.rs`.

use super::{DeviceName, values};
use crate::bounds::{
    Count, Fraction, Integer, Names, NonEmpty, NonNegative, Positive, Probability, ProbeC,
    ReductionFactor, Share,
};
use crate::data::{BatchSize, MIN_LENGTH};
use crate::error::Result;
use crate::eval::Objective;
use crate::methods::{AdapterPlacement, LoraBias, Rank};
use crate::models::{LongTexts, MOST_WINDOWS, Reading, TaskType, Term, WindowSettings};
use crate::nn::{NonLinearity, Pooling, Precision, WindowPooling};
use crate::optim::LrSchedule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A number of tokens that a text can be cut to.
pub type Length = Integer<{ MIN_LENGTH as u64 }>;

/// A configuration file, as written. Every key has a default, except three paths that only the user
/// knows.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The base model, and the task to learn.
    pub model: ModelSection,
    /// The fine-tuning method. Keys of a method that is not chosen are refused.
    pub method: MethodSection,
    /// What BitFit trains, and the learning rates of the biases.
    pub bitfit: BitfitSection,
    /// The training and evaluation data.
    pub data: DataSection,
    /// The training, with the keys of Hugging Face's `TrainingArguments`.
    pub training: TrainingSection,
    /// The calibration of the scores after the training; without this section, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationSection>,
}

impl RunConfig {
    /// The configuration of a training of the base `model_name_or_path` on the labelled texts
    /// `train`, into the run directory `output_dir`. Every other key has its default.
    ///
    /// A base and texts may be ids on the Hub, as in a configuration file.
    ///
    /// ```
    /// use bitfit::RunConfig;
    /// use bitfit::settings::{Interval, MethodName, Positive};
    ///
    /// let mut config = RunConfig::new("models/all-MiniLM-L6-v2", "texts.csv", "runs/lora");
    /// config.method.name = MethodName::Lora;
    /// config.method.r = Some(4_u64.try_into()?);
    /// config.training.eval_strategy = Interval::Epoch;
    /// config.training.learning_rate = Some(4e-4.try_into()?);
    ///
    /// // Numbers that are not allowed are refused at once.
    /// assert!(Positive::try_from(-1.0).is_err());
    /// # Ok::<(), bitfit::Error>(())
    /// ```
    pub fn new(
        model_name_or_path: impl Into<PathBuf>,
        train: impl Into<PathBuf>,
        output_dir: impl Into<PathBuf>,
    ) -> Self {
        let mut config = Self::default();
        config.model.model_name_or_path = model_name_or_path.into();
        config.data.train = train.into();
        config.training.output_dir = output_dir.into();
        config
    }
}

/// `[model]`: the base model, and the task to learn.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// The base: a directory in Hugging Face layout, or the id of a model on the Hub.
    pub model_name_or_path: PathBuf,
    /// Branch, tag or commit of a model on the Hub; by default the newest commit of `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// File name of the base's weights, or of their index; by default the first of `model.ot`,
    /// `model.safetensors`, `pytorch_model.bin`, which must agree (from the Hub, safetensors
    /// first).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Delta to start from, or a plain safetensors file under Hugging Face's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_delta: Option<PathBuf>,
    /// What the head predicts for a text.
    pub task_type: TaskType,
    /// What the head reads of the last layer's output: the `"first"` token, as transformers does,
    /// or the `"mean"` over all tokens, as most models of sentence-transformers do. `"auto"` takes
    /// what sentence-transformers' files in the base say, and the first token if there are none;
    /// the method probe always reads the mean.
    pub pooling: PoolingChoice,
    /// Number of classes. Without `label_names`, the labels are then 0 to `num_labels` - 1; by
    /// default the number of labels in the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_labels: Option<Integer<1, 10_000>>,
    /// Class names, in the order of the class numbers. Labels in a file may then be these names or,
    /// if no name is a number, class numbers. Names such as `NA` are allowed, and a list of 0 and 1
    /// holds a flag for each name; by default the labels in the data, sorted, or in the order that
    /// a Parquet file of the Hub declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_names: Option<Names>,
    /// Dropout probability after the embeddings and before each residual connection; by default the
    /// base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<Probability>,
    /// Dropout probability of the attention probabilities; by default the base's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<Probability>,
    /// Dropout probability before the head; by default the base's, or `hidden_dropout_prob` if the
    /// base has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<Probability>,
}

/// A value of `model.pooling`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolingChoice {
    /// What sentence-transformers' files in the base say, else the first token.
    #[default]
    Auto,
    /// The first token.
    First,
    /// The mean over all tokens.
    Mean,
}

impl PoolingChoice {
    /// The pooling, unless the base decides it.
    pub fn fixed(self) -> Option<Pooling> {
        match self {
            Self::Auto => None,
            Self::First => Some(Pooling::First),
            Self::Mean => Some(Pooling::Mean),
        }
    }
}

impl From<Pooling> for PoolingChoice {
    fn from(pooling: Pooling) -> Self {
        match pooling {
            Pooling::First => Self::First,
            Pooling::Mean => Self::Mean,
        }
    }
}

/// The names of the fine-tuning methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Biases and the new head.
    #[default]
    Bitfit,
    /// Every parameter.
    Full,
    /// Low-rank updates of dense layers, and the new head.
    Lora,
    /// Bottleneck adapters, and the new head.
    Adapter,
    /// The new head alone.
    Head,
    /// The weight and bias of every LayerNorm, and the new head.
    LayerNorm,
    /// The head alone, solved on the base's embeddings as scikit-learn's `LogisticRegression` or
    /// `Ridge` would be; no steps are taken.
    Probe,
}

impl MethodName {
    /// Whether AdamW's steps train the method, and not a solver.
    pub(crate) fn takes_steps(self) -> bool {
        self != Self::Probe
    }
}

/// `[method]`: the fine-tuning method. Keys of a method that is not chosen would have no effect, so
/// they are refused.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MethodSection {
    /// Name of the fine-tuning method.
    pub name: MethodName,
    /// LoRA's rank; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<Rank>,
    /// Scale of LoRA's update, which is multiplied by `lora_alpha / r`; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<Positive>,
    /// Dropout probability of the input of LoRA's matrices; by default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_dropout: Option<Probability>,
    /// Dense layers that LoRA adapts, by their full names or last parts; by default query and
    /// value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Vec<String>>,
    /// Which biases train with LoRA; by default `"none"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<LoraBias>,
    /// Placement of the adapters; by default `"pfeiffer"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<AdapterPlacement>,
    /// Hidden size divided by the adapter's bottleneck size; by default 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_factor: Option<ReductionFactor>,
    /// Activation between an adapter's two dense layers; by default `"relu"` for `"pfeiffer"`,
    /// `"swish"` for `"houlsby"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub non_linearity: Option<NonLinearity>,
    /// Factor of a probe's losses beside the penalty on its weight, as scikit-learn's `C`; of a
    /// regression, `1 / c` is the `alpha` of `Ridge`; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c: Option<ProbeC>,
}

/// `[bitfit]`: what BitFit trains, and the learning rates of the biases.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BitfitSection {
    /// Always true for BitFit; to train weights, choose another method such as `"full"`.
    #[schemars(extend("const" = true))]
    pub freeze_all_weights: bool,
    /// Always true for BitFit.
    #[schemars(extend("const" = true))]
    pub train_bias_only: bool,
    /// Learning rate of the encoder's biases, if it differs from the head's; by default
    /// `training.learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_learning_rate: Option<Positive>,
    /// Learning rate of the attention's biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_learning_rate: Option<Positive>,
    /// Learning rate of the feedforward's biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedforward_learning_rate: Option<Positive>,
    /// Learning rate of the LayerNorms' biases; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_learning_rate: Option<Positive>,
    /// Learning rate of the pooler's bias; by default `bias_learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_learning_rate: Option<Positive>,
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
    /// Whether the head's weight, which starts from random values, trains. With false, BitFit
    /// trains strictly biases.
    pub train_classifier_weight: bool,
    /// Whether the key's bias trains. The gradient of that bias is zero except for rounding errors.
    pub train_key_bias: bool,
    /// Encoder biases that train, as in the paper's subsets, if the switch of their group is on; by
    /// default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_terms: Option<Vec<Term>>,
    /// Layers whose biases train, counted from 0: `"8-11"`, `"0,2"`, `"6-"`, `"-3"`; by default
    /// all, and the embeddings' LayerNorm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// Biases that train in addition to those that the keys above select: regular expressions over
    /// whole names.
    pub include: Vec<String>,
    /// Biases that do not train, even if `include` matches them: regular expressions over whole
    /// names, such as `".*\\.key\\.bias"`.
    pub exclude: Vec<String>,
    /// Number of bias entries that train in the encoder, drawn with `training.seed` from the biases
    /// that the keys above select. Only whole biases are drawn, so slightly fewer entries may
    /// train; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_biases: Option<u64>,
}

/// `[data]`: the training and evaluation data.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// The training rows: a `.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`, a folder of class
    /// folders or of a split's Parquet files, or the id of a data set on the Hub.
    pub train: PathBuf,
    /// The evaluation rows, in the same forms; by default `eval_fraction` of the training rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// Branch, tag or commit of a data set on the Hub; by default the newest commit of `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The subset of a data set on the Hub; by default the only one, or the one called `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Split of a data set on the Hub to train on; by default `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_split: Option<String>,
    /// Split of a data set on the Hub to evaluate on; by default `validation`, or else `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_split: Option<String>,
    /// Share of the training rows, stratified by class, that is kept for evaluation if there is no
    /// `eval`.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub eval_fraction: f64,
    /// Number of training rows to use, drawn so that classes keep their shares; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_samples: Option<Count>,
    /// Number of evaluation rows to use, drawn so that classes keep their shares; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_samples: Option<Count>,
    /// Seed for drawing rows and for the split. A number keeps the rows the same when
    /// `training.seed` changes; by default `training.seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether the first line of a CSV or TSV names the columns; otherwise the columns are named by
    /// number, from 1.
    pub header: bool,
    /// Character between the columns of a CSV; by default a comma, semicolon, tab or bar, as its
    /// first lines show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether to leave out rows with an error, such as a missing label, and warn about them,
    /// instead of ending the run. A file that is not UTF-8 or has a misplaced quote still ends the
    /// run.
    pub skip_bad_rows: bool,
    /// The column or field of the text.
    pub text_column: String,
    /// The column of the second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair_column: Option<String>,
    /// The column of the label, or of the labels.
    pub label_column: String,
    /// Text between the labels of a row (`multi_label`). In JSON and Parquet the labels may be a
    /// list instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_separator: Option<NonEmpty>,
    /// Columns of 0 or 1, one for each label and named by it (`multi_label`); used instead of
    /// `label_column`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_columns: Option<Names>,
    /// Whether the rows are shuffled anew for each epoch.
    pub shuffle: bool,
    /// Number of tokens of a text that are read at once, special tokens included; at most the
    /// number of the base's positions. `long_texts` says what is done with longer texts.
    pub max_length: Length,
    /// What is done with texts of more than `max_length` tokens: the rest is `"cut"` off, or the
    /// first and the last tokens are read (`"head_tail"`), or all tokens in overlapping
    /// `"windows"`, whose logits are pooled.
    pub long_texts: LongTextMode,
    /// Tokens that a window begins after the one before (`"windows"`); by default half of the
    /// tokens of a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_stride: Option<Count>,
    /// The most windows of a text (`"windows"`). Further windows are left out, and a warning counts
    /// them; by default 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_windows: Option<MostWindows>,
    /// How the logits of a text's windows become those of the text (`"windows"`): by their `"mean"`
    /// or their `"max"`; by default the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_pooling: Option<WindowPooling>,
}

/// A number of windows of a text.
pub type MostWindows = Integer<1, MOST_WINDOWS>;

/// What is done with texts of more than `max_length` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LongTextMode {
    /// The text is cut as transformers' `longest_first` cuts.
    #[default]
    Cut,
    /// The first and the last tokens are read, half each.
    HeadTail,
    /// All tokens are read, in overlapping windows.
    Windows,
}

impl LongTextMode {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::HeadTail => "head_tail",
            Self::Windows => "windows",
        }
    }
}

impl DataSection {
    /// How texts become token ids.
    pub(crate) fn reading(&self) -> Reading {
        let long_texts = match self.long_texts {
            LongTextMode::Cut => LongTexts::Cut,
            LongTextMode::HeadTail => LongTexts::HeadTail,
            LongTextMode::Windows => LongTexts::Windows(WindowSettings {
                window_stride: self.window_stride.map(Count::size),
                most_windows: self.most_windows.unwrap_or(DEFAULT_WINDOWS).size(),
                window_pooling: self.window_pooling.unwrap_or_default(),
            }),
        };
        Reading { max_length: self.max_length.size(), long_texts }
    }

    /// Fills in the defaults of the keys about windows.
    pub(super) fn settle_windows(&mut self) {
        if self.long_texts == LongTextMode::Windows {
            self.most_windows.get_or_insert(DEFAULT_WINDOWS);
            self.window_pooling.get_or_insert_default();
        }
    }
}

/// The most windows of a text where the configuration does not say.
const DEFAULT_WINDOWS: MostWindows = MostWindows::constant(8);

/// When to evaluate or save.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Every `eval_steps` steps to evaluate, every `save_steps` to save.
    #[default]
    Steps,
    /// At the end of each epoch.
    Epoch,
    /// Never during the training.
    No,
}

/// `[calibration]`: what makes the scores of a classification or of several labels mean what they
/// say. The rows for it neither train nor choose the best state.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationSection {
    /// Share of the training rows, stratified by class, that is kept for the calibration: 50 rows
    /// or more.
    pub fraction: Share,
    /// Whether a temperature is fitted, by which the logits are divided. The saved head has it in
    /// its weight and bias.
    pub temperature: bool,
    /// What thresholds are chosen for: `"accuracy"`, `"f1"` or the least `"cost"`. A label is given
    /// from its threshold on. Only with several labels, or two classes; by default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<ThresholdGoal>,
    /// With `"cost"`, the cost of a label (of two classes, the second) that is given and wrong; by
    /// default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_positive_cost: Option<Positive>,
    /// With `"cost"`, the cost of a label that is missing; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub false_negative_cost: Option<Positive>,
}

impl Default for CalibrationSection {
    fn default() -> Self {
        Self {
            fraction: const { Share::constant(0.2) },
            temperature: true,
            thresholds: None,
            false_positive_cost: None,
            false_negative_cost: None,
        }
    }
}

impl CalibrationSection {
    /// What the thresholds make best; `None` without thresholds.
    pub fn objective(&self) -> Option<Objective> {
        let cost = |cost: Option<Positive>| cost.map_or(1.0, Into::into);
        Some(match self.thresholds? {
            ThresholdGoal::Accuracy => Objective::Accuracy,
            ThresholdGoal::F1 => Objective::F1,
            ThresholdGoal::Cost => Objective::Cost {
                false_positive: cost(self.false_positive_cost),
                false_negative: cost(self.false_negative_cost),
            },
        })
    }
}

/// What the thresholds of a calibration are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdGoal {
    /// The most right decisions.
    Accuracy,
    /// The best F1 of each label; of two classes, of the second.
    F1,
    /// The least cost of wrong decisions.
    Cost,
}

/// The metric that decides which evaluation is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of rows predicted correctly; with several labels, of rows with every label correct.
    Accuracy,
    /// F1 of class 1 where there are two classes, the mean over classes otherwise.
    F1,
    /// F1 over the decisions on all classes together.
    F1Micro,
    /// Mean of the classes' F1.
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
    /// The metric's name in metrics files.
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

    /// Whether a lower value of the metric is better.
    pub(crate) fn is_error(self) -> bool {
        matches!(self, Metric::Loss | Metric::Mse | Metric::Mae)
    }

    /// The metrics of a task, its default first.
    pub(crate) fn of(task: TaskType) -> &'static [Metric] {
        use Metric::*;
        match task {
            TaskType::Classification => &[Accuracy, F1, F1Micro, F1Macro, Matthews, Loss],
            TaskType::MultiLabel => &[F1Micro, F1Macro, Accuracy, Loss],
            TaskType::Regression => &[Pearson, Spearman, Mse, Mae, Loss],
        }
    }
}

/// The weight of each class in the training loss.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"balanced\", a list of numbers, or a table of a number for each label"
)]
pub enum ClassWeights {
    /// Weights by how rare each class is among the training rows.
    Named(Balanced),
    /// One weight for each class, by class number.
    List(Vec<f64>),
    /// Weights by label. A label that is not named has weight 1.
    Table(BTreeMap<String, f64>),
}

/// The name of a rule for class weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balanced {
    /// Rows / (classes x rows of the class), as scikit-learn's `class_weight="balanced"`; with
    /// several labels, rows without the label / rows with it.
    Balanced,
}

/// `[training]`: the keys of Hugging Face's `TrainingArguments`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSection {
    /// The run directory.
    pub output_dir: PathBuf,
    /// Passes over the training rows; by default as many as give small data about 400 steps, and 3
    /// or more (docs/defaults.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_epochs: Option<Count>,
    /// Number of steps of the run; a positive number replaces `num_train_epochs`.
    pub max_steps: i64,
    /// Rows in a training batch.
    pub per_device_train_batch_size: Count,
    /// Token budget of a batch, in place of `per_device_train_batch_size`: a batch takes rows in
    /// the epoch's order as long as their tokens fit. Steps then cost about the same whatever the
    /// lengths of the texts. At least `data.max_length`; with windows, times `data.most_windows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_batch: Option<Length>,
    /// Number of batches whose gradients are summed for one step: the result of one large batch,
    /// with less memory. The last step of an epoch takes the rows that remain, and averages over
    /// those.
    pub gradient_accumulation_steps: Count,
    /// Rows in an evaluation batch; more if they are short, up to 2,048 tokens in all on
    /// the CPU and 16,384 on a GPU.
    pub per_device_eval_batch_size: Count,
    /// AdamW's learning rate. A rate that is written holds for the head too, and stays constant.
    /// Without one, the head may have its own rate, and all rates fall to zero. The methods' rates
    /// are 2e-3 for bitfit and layer_norm, 1e-2 for head, 5e-5 for full, 5e-4 for lora and 1e-4 for
    /// adapter; by default the method's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<Positive>,
    /// Learning rate of the head, if it differs from that of the other parameters, for the methods
    /// bitfit, head and layer_norm; by default `learning_rate` if that is written, else 1e-2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_learning_rate: Option<Positive>,
    /// How the learning rate changes after the warm-up; by default `"constant"` if
    /// `learning_rate` is written, else `"linear"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_scheduler_type: Option<LrSchedule>,
    /// Number of warm-up steps, in which the learning rate rises from zero; with 0, `warmup_ratio`
    /// applies.
    pub warmup_steps: u64,
    /// Share of all steps that are warm-up steps, if `warmup_steps` is 0; by default 0 if
    /// `learning_rate` is written, else 0.06.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<Fraction>,
    /// Share of each target that is spread over all classes, in a classification. Evaluations
    /// measure the loss without smoothing.
    pub label_smoothing_factor: Fraction,
    /// Weight of each class in the training loss: `"balanced"`, a list by class number, or a table
    /// by label. With several labels, a weight multiplies the loss of having the label.
    /// `"balanced"` is rows / (classes x rows of the class), with several labels rows without the
    /// label / rows with it. A label that a table does not name has weight 1. Evaluations use no
    /// weights, and a regression accepts none; by default 1 for every class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Whether a regression learns targets with mean 0 and standard deviation 1, made from the
    /// training rows'. The saved head has them in its weight and bias, so that it predicts the
    /// numbers of the data; by default true for a regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standardize_target: Option<bool>,
    /// AdamW's weight decay.
    pub weight_decay: NonNegative,
    /// AdamW's beta 1.
    pub adam_beta1: Fraction,
    /// AdamW's beta 2.
    pub adam_beta2: Fraction,
    /// AdamW's epsilon.
    pub adam_epsilon: Positive,
    /// Norm to which the gradient is clipped; 0 turns clipping off.
    pub max_grad_norm: NonNegative,
    /// Seed of new parameters, the order of the rows and dropout, and, without `data.seed`, of
    /// drawn rows and the split.
    pub seed: u64,
    /// When to evaluate; a run always ends with an evaluation.
    pub eval_strategy: Interval,
    /// Steps between evaluations.
    pub eval_steps: Count,
    /// When to save the state of the run under `checkpoints/`.
    pub save_strategy: Interval,
    /// Steps between saves.
    pub save_steps: Count,
    /// Number of checkpoints to keep: the newest.
    pub save_total_limit: Count,
    /// Steps between lines of the log.
    pub logging_steps: Count,
    /// Whether `delta.safetensors` holds the best evaluated state, instead of the last. Among few
    /// evaluation rows, chance decides which state is the best, and a rate that falls to zero ends
    /// in a settled state; by default true, but false if the rate falls and fewer than 100 rows
    /// evaluate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_best_model_at_end: Option<bool>,
    /// Metric that decides which state is best; docs/formats.md lists each task's metrics; by
    /// default the task's first: accuracy, f1_micro or pearson.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_for_best_model: Option<Metric>,
    /// Whether a greater value of that metric is better; by default true, and false for errors and
    /// the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Number of evaluations in a row without improvement after which the run ends; by default
    /// never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<Count>,
    /// Improvement of the metric that an evaluation must exceed to count for
    /// `early_stopping_patience`.
    pub early_stopping_threshold: NonNegative,
    /// Whether to keep only each layer's input in the forward pass, and to recompute the rest in
    /// the backward pass: less memory, more time.
    pub gradient_checkpointing: bool,
    /// Whether to compute the output of the lowest layers, if nothing in them trains, once for each
    /// training row, without dropout.
    pub cache_frozen_layers: bool,
    /// Memory for the output that `cache_frozen_layers` keeps, in MiB.
    pub cache_memory_mib: u64,
    /// Disk space for the output that does not fit in `cache_memory_mib`, on the disk of
    /// `output_dir`, in MiB.
    pub cache_disk_mib: u64,
    /// Device to compute on: `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: DeviceName,
    /// Data type of matrix products; on a CPU, of those with frozen weights. Parameters that train
    /// are fp32 in any case.
    pub precision: Precision,
    /// Whether fp32 matrix products on CUDA devices may round their factors to TF32's 10 mantissa
    /// bits.
    pub tf32: bool,
}

/// The warm-up of a rate that bitfit chooses, as a share of all steps.
const WARMUP: Fraction = Fraction::constant(0.06);

impl TrainingSection {
    /// The section without what only steps of training read: those keys have their defaults.
    pub(crate) fn without_steps(&self) -> Self {
        let its = self.clone();
        Self {
            output_dir: its.output_dir,
            per_device_eval_batch_size: its.per_device_eval_batch_size,
            class_weights: its.class_weights,
            standardize_target: its.standardize_target,
            seed: its.seed,
            save_strategy: its.save_strategy,
            metric_for_best_model: its.metric_for_best_model,
            greater_is_better: its.greater_is_better,
            device: its.device,
            precision: its.precision,
            tf32: its.tf32,
            ..Self::default()
        }
    }

    /// The keys that only steps of training read and that have another value than their default,
    /// as `training.KEY` with that value.
    pub(crate) fn of_steps(&self) -> Result<Vec<(String, toml::Value)>> {
        // A path that is not UTF-8 has no form in TOML.
        let its = Self { output_dir: PathBuf::new(), ..self.clone() };
        let others = values(&its.without_steps())?;
        let its = values(&its)?.into_iter().filter(|(key, value)| others.get(key) != Some(value));
        Ok(its.map(|(key, value)| (format!("training.{key}"), value)).collect())
    }

    /// Whether the best evaluated state is kept, instead of the last.
    pub fn keeps_best(&self) -> bool {
        self.load_best_model_at_end.unwrap_or(true)
    }

    /// Sets the schedule where it is not written. With a learning rate that is `written`, the
    /// schedule is constant, as in the paper; else it is linear, after a short warm-up.
    pub fn settle_schedule(&mut self, written: bool) {
        let (schedule, warmup) = match written {
            true => (LrSchedule::Constant, const { Fraction::constant(0.0) }),
            false => (LrSchedule::Linear, WARMUP),
        };
        self.lr_scheduler_type.get_or_insert(schedule);
        self.warmup_ratio.get_or_insert(warmup);
    }

    /// The size of a training batch: in tokens if `max_tokens_per_batch` is set, otherwise in rows.
    #[doc(hidden)]
    pub fn batch_size(&self) -> BatchSize {
        let rows = BatchSize::Rows(self.per_device_train_batch_size.size());
        self.max_tokens_per_batch.map_or(rows, |most| BatchSize::Tokens(most.size()))
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
            pooling: PoolingChoice::Auto,
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
            max_length: const { Length::constant(128) },
            long_texts: LongTextMode::Cut,
            window_stride: None,
            most_windows: None,
            window_pooling: None,
        }
    }
}

impl Default for TrainingSection {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::new(),
            num_train_epochs: None,
            max_steps: -1,
            per_device_train_batch_size: const { Count::constant(16) },
            max_tokens_per_batch: None,
            gradient_accumulation_steps: const { Count::constant(1) },
            per_device_eval_batch_size: const { Count::constant(32) },
            learning_rate: None,
            head_learning_rate: None,
            lr_scheduler_type: None,
            warmup_steps: 0,
            warmup_ratio: None,
            label_smoothing_factor: const { Fraction::constant(0.0) },
            class_weights: None,
            standardize_target: None,
            weight_decay: const { NonNegative::constant(0.0) },
            adam_beta1: const { Fraction::constant(0.9) },
            adam_beta2: const { Fraction::constant(0.999) },
            adam_epsilon: const { Positive::constant(1e-8) },
            max_grad_norm: const { NonNegative::constant(1.0) },
            seed: 42,
            eval_strategy: Interval::Steps,
            eval_steps: const { Count::constant(100) },
            save_strategy: Interval::Steps,
            save_steps: const { Count::constant(100) },
            save_total_limit: const { Count::constant(2) },
            logging_steps: const { Count::constant(50) },
            load_best_model_at_end: None,
            metric_for_best_model: None,
            greater_is_better: None,
            early_stopping_patience: None,
            early_stopping_threshold: const { NonNegative::constant(0.0) },
            gradient_checkpointing: false,
            cache_frozen_layers: false,
            cache_memory_mib: 1024,
            cache_disk_mib: 4096,
            device: DeviceName::Auto,
            precision: Precision::Auto,
            tf32: false,
        }
    }
}
