//! Writes a directory for sentence-transformers, whose three modules make the logits: the encoder,
//! the mean over its tokens, and the output layer. transformers' own classifiers have no mean.

use super::format::write_tensors;
use crate::error::{Error, Result};
use crate::files;
use crate::models::{Architecture, SENTENCE_FILES, Task};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// The folder of the output layer.
const DENSE: &str = "2_Dense";

/// Writes the modules of `task` into `dir`: `tensors` are those of its whole model, and `config` is
/// the text of the classifier's `config.json`.
pub fn write(
    dir: &Path,
    architecture: Architecture,
    task: &Task,
    config: &str,
    mut tensors: BTreeMap<String, Tensor>,
) -> Result<()> {
    let [weight, bias] = architecture.output_names().map(|name| tensors.remove(&name));
    let (Some(weight), Some(bias)) = (weight, bias) else {
        return Err(Error::Bug("a task without an output layer".into()));
    };
    let [outputs, inputs] = weight.size()[..] else {
        return Err(Error::Bug(format!("an output layer of shape {:?}", weight.size())));
    };
    let mut config: Value = serde_json::from_str(config).map_err(Error::bug)?;
    let class = architecture.class.trim_end_matches("ForSequenceClassification");
    if let Some(config) = config.as_object_mut() {
        config.insert("architectures".into(), json!([format!("{class}Model")]));
    }
    let [modules, pooling] = SENTENCE_FILES;
    let (pools, _) = pooling.split_once('/').unwrap_or((pooling, ""));
    let module = |index: usize, path: &str, class: &str| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")});
    let dense = json!({
        "in_features": inputs,
        "out_features": outputs,
        "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity",
    });
    let mean = json!({
        "word_embedding_dimension": inputs,
        "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    for folder in [pools, DENSE] {
        files::create_dir(&dir.join(folder))?;
    }
    let parts =
        [module(0, "", "Transformer"), module(1, pools, "Pooling"), module(2, DENSE, "Dense")];
    for (name, value) in [
        ("config.json", config),
        (modules, json!(parts)),
        (
            "sentence_bert_config.json",
            json!({"max_seq_length": task.max_length, "do_lower_case": false}),
        ),
        // Without this file, sentence-transformers looks for it on the Hub.
        (
            "config_sentence_transformers.json",
            json!({"prompts": {}, "default_prompt_name": null, "similarity_fn_name": "cosine"}),
        ),
        (pooling, mean),
        (&format!("{DENSE}/config.json"), dense),
    ] {
        let text = serde_json::to_string_pretty(&value).map_err(Error::bug)?;
        files::write(&dir.join(name), (text + "\n").as_bytes())?;
    }
    write_tensors(dir, "model.safetensors", &tensors)?;
    let dense = [("linear.weight".to_owned(), weight), ("linear.bias".to_owned(), bias)];
    write_tensors(&dir.join(DENSE), "model.safetensors", &dense.into())
}

/// The error of a task that `format` cannot hold, because its head reads the other pooling.
pub fn check(task: &Task, sentence_transformers: bool) -> Result<()> {
    let problem = match (task.pooling.is_first(), sentence_transformers) {
        (false, false) => {
            "the task's head reads the mean of all tokens, which transformers' classifiers have \
             not; expected --format sentence-transformers"
        }
        (true, true) => {
            "the task's head reads the first token, as transformers' classifiers do; expected \
             --format hf or peft (model.pooling = \"mean\" trains a head on the mean)"
        }
        _ => return Ok(()),
    };
    Err(Error::Usage(format!("--format: {problem}")))
}
