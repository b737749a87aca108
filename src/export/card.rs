//! The model card: `README.md` beside what is exported, with the front matter that the Hub reads.

use super::format::ExportFormat;
use crate::config::{DataSection, Run, RunConfig};
use crate::delta::Delta;
use crate::error::Result;
use crate::escape::{code, markdown, quoted};
use crate::freeze::{Group, Places};
use crate::methods::{Method, ProbeConfig};
use crate::models::{LongTexts, Task, TaskType};
use crate::numbers::thousands;
use crate::sources::Model;
use crate::task_model::TaskModel;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

/// The contents of a model card.
pub struct Card<'a> {
    /// The format of the export.
    pub format: ExportFormat,
    /// The name of the exported model.
    pub name: &'a str,
    /// The origin of the base.
    pub source: &'a Model,
    /// The base with the task's head and tensors.
    pub model: &'a TaskModel,
    /// The exported task.
    pub task: &'a Delta,
    /// The run that made the task, where it is known.
    pub run: Option<&'a Run>,
}

/// The Hub's id of a metric, and the metric's display name; `None` if evaluations give no such
/// metric.
fn metric(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "accuracy" => ("accuracy", "Accuracy"),
        "f1" => ("f1", "F1"),
        "f1_micro" => ("f1", "F1 (micro)"),
        "f1_macro" => ("f1", "F1 (macro)"),
        "matthews" => ("matthews_correlation", "Matthews correlation"),
        "pearson" => ("pearsonr", "Pearson correlation"),
        "spearman" => ("spearmanr", "Spearman correlation"),
        "mse" => ("mse", "Mean squared error"),
        "mae" => ("mae", "Mean absolute error"),
        "loss" => ("loss", "Loss"),
        _ => return None,
    })
}

impl Card<'_> {
    /// The card's text: YAML front matter, then Markdown.
    pub fn text(&self) -> Result<String> {
        let (meta, base) = (&self.task.meta, markdown(&self.source.name));
        let mut text = self.front_matter();
        let what = match meta.task.task_type {
            TaskType::Classification => format!("labels a text as one of: {}", self.labels()),
            TaskType::MultiLabel => format!("labels a text with any of: {}", self.labels()),
            TaskType::Regression => "predicts a number for a text".into(),
        };
        let pairs =
            if meta.task.pairs == Some(true) { " Its inputs are pairs of texts." } else { "" };
        let _ = write!(
            text,
            "\n# {}\n\n{} that {what}.{pairs} It was fine-tuned from {base} by bitfit {}, with the method \
             {}.\n\n## Use\n\n```python\n{}```\n{}{}",
            markdown(self.name),
            match self.format {
                ExportFormat::SentenceTransformers => "A SentenceTransformer".into(),
                _ => format!("A {}", code(&meta.architecture)),
            },
            env!("CARGO_PKG_VERSION"),
            how_named(&meta.method),
            self.snippet(),
            self.thresholds(),
            in_python(&meta.task),
        );
        text += &self.trained()?;
        if let Some(run) = self.run {
            text += &how(run);
        }
        text += &self.metrics();
        let unsaid =
            if self.run.is_some() { "" } else { " The settings of the training are unknown." };
        let _ = write!(
            text,
            "\n## Limitations\n\n\
             - {}\n\
             - The metrics were measured on the evaluation data that the model was selected on. Texts of another kind may give other results.{unsaid}\n\
             - The language, the licence and the biases are those of the base: see the card of {base}.\n\
             - {}\n",
            limit(&meta.task),
            match is_calibrated(self.run, &meta.task) {
                true =>
                    "Scores were calibrated on rows like those of the training; of other texts they may be too high or too low.",
                false => "Scores are not calibrated probabilities.",
            }
        );
        Ok(text)
    }

    fn labels(&self) -> String {
        self.task.meta.task.labels.iter().map(code).collect::<Vec<_>>().join(", ")
    }

    /// The front matter: YAML that the Hub reads.
    fn front_matter(&self) -> String {
        let (library, relation) = match self.format {
            ExportFormat::Hf => ("transformers", "finetune"),
            ExportFormat::Peft => ("peft", "adapter"),
            ExportFormat::SentenceTransformers => ("sentence-transformers", "finetune"),
        };
        let base = quoted(&self.source.name);
        let kind = self.model.config.architecture.prefix;
        let method = self.task.meta.method.name();
        let mut text = format!(
            "---\nlibrary_name: {library}\nbase_model: {base}\nbase_model_relation: {relation}\npipeline_tag: text-classification\n\
             tags:\n- {method}\n- text-classification\n- {kind}\n"
        );
        let data = self.run.map(|run| data(run.data()));
        if let Some(Data { id: Some(id), .. }) = &data {
            let _ = write!(text, "datasets:\n- {}\n", quoted(id));
        }
        let found: Vec<_> = self.found().collect();
        if found.is_empty() {
            return text + "---\n";
        }
        text += "metrics:\n";
        let mut ids: Vec<&str> = found.iter().map(|(id, ..)| *id).collect();
        ids.dedup();
        ids.iter().filter(|id| **id != "loss").for_each(|id| text += &format!("- {id}\n"));
        let Data { name, id, split } =
            data.unwrap_or(Data { name: "evaluation data".into(), id: None, split: None });
        let _ = write!(
            text,
            "model-index:\n- name: {}\n  results:\n  - task:\n      type: text-classification\n    dataset:\n      name: {}\n      type: {}\n",
            quoted(self.name),
            quoted(&name),
            quoted(id.as_ref().unwrap_or(&name)),
        );
        if let Some(split) = split {
            let _ = writeln!(text, "      split: {}", quoted(&split));
        }
        text += "    metrics:\n";
        for (id, shown, value) in found {
            let _ = write!(
                text,
                "    - type: {id}\n      name: {shown}\n      value: {}\n",
                json!(value)
            );
        }
        text + "---\n"
    }

    /// The finite metrics: id on the Hub, display name, value. Names that evaluations do not give
    /// are left out, because a task file may hold any name.
    fn found(&self) -> impl Iterator<Item = (&'static str, &'static str, f64)> {
        let metrics = self.task.meta.metrics.iter().filter(|(_, value)| value.is_finite());
        metrics.filter_map(|(name, value)| {
            let (id, shown) = metric(name)?;
            Some((id, shown, *value))
        })
    }

    fn snippet(&self) -> String {
        let (meta, name) = (&self.task.meta, quoted(self.name));
        let length = meta.task.max_length;
        let (one, two) = ("\"A text.\"", "\"Another text.\"");
        let of_logits = of_logits(&meta.task);
        match self.format {
            ExportFormat::Hf => {
                let scores = match meta.task.task_type {
                    TaskType::Classification => "",
                    TaskType::MultiLabel => ", top_k=None, function_to_apply=\"sigmoid\"",
                    TaskType::Regression => ", function_to_apply=\"none\"",
                };
                let input = match meta.task.pairs == Some(true) {
                    true => format!("{{\"text\": {one}, \"text_pair\": {two}}}"),
                    false => one.into(),
                };
                format!(
                    "from transformers import pipeline\n\n\
                     classify = pipeline(\"text-classification\", model={name})\n\
                     print(classify({input}, truncation=True, max_length={length}{scores}))\n"
                )
            }
            ExportFormat::Peft => {
                let pair =
                    if meta.task.pairs == Some(true) { format!(", {two}") } else { String::new() };
                let base = quoted(&self.source.name);
                format!(
                    "from peft import PeftModel  # 0.20 or newer\n\
                     from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer\n\n\
                     config = AutoConfig.from_pretrained({name})  # the labels\n\
                     base = AutoModelForSequenceClassification.from_pretrained({base}, config=config)\n\
                     model = PeftModel.from_pretrained(base, {name}).eval()\n\
                     tokenizer = AutoTokenizer.from_pretrained({name})\n\
                     inputs = tokenizer({one}{pair}, truncation=True, max_length={length}, return_tensors=\"pt\")\n\
                     print(model(**inputs).logits{of_logits})\n"
                )
            }
            ExportFormat::SentenceTransformers => {
                let input = match meta.task.pairs == Some(true) {
                    true => format!("[({one}, {two})]"),
                    false => format!("[{one}]"),
                };
                format!(
                    "from sentence_transformers import SentenceTransformer\n\n\
                     model = SentenceTransformer({name})\n\
                     logits = model.encode({input}, convert_to_tensor=True)\n\
                     labels = model[0].auto_model.config.id2label\n\
                     print(logits{of_logits}, labels)\n"
                )
            }
        }
    }

    /// What Python's lines need to give the labels that thresholds give; empty without thresholds.
    fn thresholds(&self) -> String {
        let task = &self.task.meta.task;
        if task.thresholds.is_empty() {
            return String::new();
        }
        let (config, scores) = match self.format {
            ExportFormat::Hf => {
                let sigmoid = match task.task_type {
                    TaskType::MultiLabel => ", function_to_apply=\"sigmoid\"",
                    _ => "",
                };
                (
                    "classify.model.config",
                    format!(
                        "{{s[\"label\"]: s[\"score\"] for s in classify(\"A text.\", top_k=None{sigmoid})}}"
                    ),
                )
            }
            ExportFormat::Peft => {
                let of_logits = of_logits(task);
                let logits = format!("model(**inputs).logits[0]{of_logits}.tolist()");
                ("config", format!("dict(zip(config.label2id, {logits}))"))
            }
            ExportFormat::SentenceTransformers => {
                let logits = format!("logits[0]{}.tolist()", of_logits(task));
                ("model[0].auto_model.config", format!("dict(zip(labels.values(), {logits}))"))
            }
        };
        let labels = match (task.task_type, task.labels.first()) {
            (TaskType::Classification, Some(first)) => {
                format!("print(given or [{}])", quoted(first))
            }
            _ => "print(given)".into(),
        };
        format!(
            "\nA label is given from its threshold on, not from a half:\n\n```python\n\
             thresholds = {config}.bitfit[\"thresholds\"]\n\
             scores = {scores}\n\
             given = [label for label, least in thresholds.items() if scores[label] >= least]\n\
             {labels}\n```\n"
        )
    }

    /// The section on what trained, by group.
    fn trained(&self) -> Result<String> {
        let (meta, shapes) = (&self.task.meta, self.model.shapes());
        let size = |name: &String| {
            shapes.get(name).map_or(0, |shape| shape.iter().product::<i64>().unsigned_abs())
        };
        let all: u64 = shapes.keys().map(size).sum();
        let trainable: u64 = meta.freeze_plan.iter().map(size).sum();
        let mut text = format!(
            "\n## What trained\n\n{} of {} parameters ({:.3} %); the others are the base's (fingerprint {}).\n\n\
             | group | tensors | parameters |\n|---|---:|---:|\n",
            thousands(trainable),
            thousands(all),
            100.0 * trainable as f64 / all.max(1) as f64,
            code(&meta.base_fingerprint),
        );
        let places = Places::new(self.model.config.architecture)?;
        for group in Group::ALL {
            let of_group = |name: &&String| places.of(name).is_ok_and(|place| place.group == group);
            let sizes: Vec<u64> = meta.freeze_plan.iter().filter(of_group).map(size).collect();
            if !sizes.is_empty() {
                let sum = thousands(sizes.iter().sum());
                let _ = writeln!(text, "| {} | {} | {sum} |", group.name(), sizes.len());
            }
        }
        Ok(text)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        for (_, shown, value) in self.found() {
            let _ = writeln!(text, "| {shown} | {value:.4} |");
        }
        if text.is_empty() {
            return text;
        }
        let on = self.run.map(|run| data(run.data())).map_or(String::new(), |data| {
            let split = data.split.map_or(String::new(), |split| format!(", {}", markdown(split)));
            format!("On {}{split}:\n\n", markdown(data.name))
        });
        format!("\n## Metrics\n\n{on}| metric | value |\n|---|---:|\n{text}")
    }
}

/// What becomes of long texts, as a limitation.
fn limit(task: &Task) -> String {
    let length = task.max_length;
    match task.long_texts {
        LongTexts::Cut => {
            format!("Texts are truncated to {length} tokens, special tokens included.")
        }
        LongTexts::HeadTail => format!(
            "Of texts of more than {length} tokens, special tokens included, only the first and the last are read."
        ),
        LongTexts::Windows(settings) => format!(
            "Texts are read in at most {} windows of {length} tokens, special tokens included; what follows is left out.",
            settings.most_windows
        ),
    }
}

/// What makes scores of a tensor of the logits of `task`, in Python.
fn of_logits(task: &Task) -> &'static str {
    match task.task_type {
        TaskType::Classification => ".softmax(-1)",
        TaskType::MultiLabel => ".sigmoid()",
        TaskType::Regression => "",
    }
}

/// Whether the scores of `task`, which `run` trained, are calibrated.
fn is_calibrated(run: Option<&Run>, task: &Task) -> bool {
    let section = run.and_then(Run::calibration);
    !task.thresholds.is_empty() || section.is_some_and(|section| section.temperature)
}

/// What Python's lines do otherwise than bitfit; empty if nothing.
fn in_python(task: &Task) -> &'static str {
    match task.long_texts {
        LongTexts::Cut => "",
        LongTexts::HeadTail => {
            "\nThese lines cut long texts, of which the model was trained on the first and the last tokens: \
             `bitfit predict` reads both.\n"
        }
        LongTexts::Windows(_) => {
            "\nThese lines cut long texts, which the model was trained to read in windows: \
             `bitfit predict` reads the windows.\n"
        }
    }
}

/// A method's name in Markdown; BitFit and LoRA link to their papers.
fn how_named(method: &Method) -> String {
    let paper = match method {
        Method::Bitfit => "BitFit](https://arxiv.org/abs/2106.10199)",
        Method::Lora(_) => "LoRA](https://arxiv.org/abs/2106.09685)",
        _ => return format!("`{}`", method.name()),
    };
    format!("[{paper}")
}

/// The data of the evaluation.
struct Data {
    name: String,
    /// The id on the Hub; `None` for local files.
    id: Option<String>,
    split: Option<String>,
}

fn data(section: &DataSection) -> Data {
    match &section.eval {
        Some(path) => Data {
            name: shown(path),
            id: RunConfig::is_id(path).then(|| shown(path)),
            split: section.eval_split.clone(),
        },
        None => Data {
            name: shown(&section.train),
            id: RunConfig::is_id(&section.train).then(|| shown(&section.train)),
            split: Some(format!("{} of the training rows, drawn by class", section.eval_fraction)),
        },
    }
}

/// The id, or the last two names of the path: cards are published, and the directories above may be
/// private.
fn shown(path: &Path) -> String {
    let last = |count| {
        let mut names: Vec<_> = path.iter().rev().take(count).collect();
        names.reverse();
        names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join("/")
    };
    last(2)
}

/// The section on the training, with the keys that affect its result.
fn how(run: &Run) -> String {
    let (training, data) = (run.training(), run.data());
    let mut rows =
        vec![("training data", shown(&data.train)), ("max_length", data.max_length.to_string())];
    if !data.reading().long_texts.is_cut() {
        rows.push(("long_texts", data.reading().long_texts.to_string()));
    }
    match &run.method {
        Method::Probe(ProbeConfig { c }) => rows.push(("c", c.to_string())),
        _ => rows.extend(of_steps(run)),
    }
    rows.extend([
        ("seed", training.seed.to_string()),
        ("precision", training.precision.to_string()),
    ]);
    let row = |(key, value): &(&str, String)| format!("| {key} | {} |\n", markdown(value));
    let rows: String = rows.iter().map(row).collect();
    format!("\n## How it was trained\n\n| key | value |\n|---|---|\n{rows}")
}

/// The keys that affect the steps of a training.
fn of_steps(run: &Run) -> Vec<(&'static str, String)> {
    let training = run.training();
    let mut rows = vec![];
    if training.max_steps > 0 {
        rows.push(("max_steps", training.max_steps.to_string()));
    } else if let Some(epochs) = training.num_train_epochs {
        rows.push(("num_train_epochs", epochs.to_string()));
    }
    match training.max_tokens_per_batch {
        Some(tokens) => rows.push(("max_tokens_per_batch", tokens.to_string())),
        None => rows.push((
            "per_device_train_batch_size",
            training.per_device_train_batch_size.to_string(),
        )),
    }
    rows.extend([
        ("gradient_accumulation_steps", training.gradient_accumulation_steps.to_string()),
        (
            "optimizer",
            format!(
                "AdamW, betas {} and {}, epsilon {:e}, weight decay {}",
                training.adam_beta1,
                training.adam_beta2,
                training.adam_epsilon.get(),
                training.weight_decay
            ),
        ),
    ]);
    let rates = &run.adamw.rates;
    let same = rates.values().all(|rate| Some(rate) == rates.values().next());
    let rate = rates.iter().map(|(group, rate)| match same {
        true => format!("{rate:e}"),
        false => format!("{rate:e} ({})", group.name()),
    });
    let rate: Vec<String> = rate.take(if same { 1 } else { rates.len() }).collect();
    rows.push(("learning_rate", rate.join(", ")));
    rows.extend([
        ("lr_scheduler_type", training.lr_scheduler_type.unwrap_or_default().to_string()),
        ("max_grad_norm", training.max_grad_norm.to_string()),
        ("label_smoothing_factor", training.label_smoothing_factor.to_string()),
    ]);
    rows
}
