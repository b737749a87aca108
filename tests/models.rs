//! `config.json`: what of it is obeyed, what is taken where it is silent, and what is refused;
//! classifiers that were saved whole.

use crate::common::{Scratch, golden, golden_dir, refused, stderr, stdout, succeeded};
use bitfit::models::{Architecture, ModelConfig, Task, Verdict, verdicts};
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Tensor;

/// What is made of a `config.json`, remarks aside: the model and, with a head in the weights, its
/// task. An error is its message.
fn made_of(folder: &Path, config: &Value) -> Result<String, String> {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let model = ModelConfig::read(folder, || Ok(vec![])).map_err(|error| error.to_string())?;
    let task = Task::saved(&folder.join("config.json"), model.architecture, true, 512);
    let task = task.map_err(|error| error.to_string())?;
    Ok(format!("{:?} {task:?}", ModelConfig { remarks: vec![], ..model }))
}

fn with(config: &Value, key: &str, value: &Value) -> Value {
    let mut config = config.clone();
    config[key] = value.clone();
    config
}

/// A `config.json` that has what every model of the architecture has.
fn plain(architecture: Architecture) -> Value {
    json!({"model_type": architecture.model_type(), "architectures": [architecture.class()]})
}

/// What scripts/make_golden_config.py found: for each version of transformers, and each
/// architecture, keys with their defaults.
fn of_transformers(architecture: Architecture) -> Vec<(String, Map<String, Value>)> {
    let text = std::fs::read_to_string(golden_dir().join("config.json")).unwrap();
    let versions: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let of = |(version, models): (String, Value)| {
        (version, models[architecture.model_type()].as_object().unwrap().clone())
    };
    versions.into_iter().map(of).collect()
}

#[test]
fn every_key_that_transformers_writes_has_a_verdict() {
    for architecture in Architecture::ALL {
        let known: Vec<_> = verdicts(architecture).map(|(key, _)| *key).collect();
        let mut once = known.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), known.len(), "{architecture:?}: one verdict for each key");
        let versions = of_transformers(architecture);
        assert!(versions.len() >= 2, "versions 4 and 5");
        for (version, keys) in versions {
            for key in keys.keys() {
                assert!(known.contains(&key.as_str()), "{version}, {architecture:?}: {key}");
            }
        }
    }
}

/// What is called obeyed changes something, and what is called without effect changes nothing,
/// whatever it says.
#[test]
fn the_verdicts_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let values = [
        json!(null),
        json!(true),
        json!("x"),
        json!("PhobertTokenizer"),
        json!(3),
        json!(0.5),
        json!({"0": "x"}),
        json!(["x"]),
    ];
    for architecture in Architecture::ALL {
        let plain = plain(architecture);
        let expected = made_of(folder.path(), &plain);
        assert!(expected.is_ok(), "{expected:?}");
        for (key, verdict) in verdicts(architecture) {
            let outcomes = values
                .each_ref()
                .map(|value| (value, made_of(folder.path(), &with(&plain, key, value))));
            let differs = |outcome: &Result<String, String>| *outcome != expected;
            let name = format!("{architecture:?}, {key}");
            match verdict {
                Verdict::Obeyed => {
                    assert!(outcomes.iter().any(|(_, outcome)| differs(outcome)), "{name}");
                }
                Verdict::WithoutEffect => {
                    let changed = outcomes.iter().find(|(_, outcome)| differs(outcome));
                    assert!(changed.is_none(), "{name}: {changed:?}");
                }
                Verdict::Refused { harmless, expected: reason } => {
                    assert!(harmless(&json!(null)), "{name}");
                    for (value, outcome) in outcomes {
                        match outcome {
                            outcome if harmless(value) => assert_eq!(outcome, expected, "{name}"),
                            Err(error) => assert!(
                                error.contains(&format!("{key}: found")) && error.contains(reason),
                                "{error}"
                            ),
                            Ok(_) => panic!("{name}: {value} is taken"),
                        }
                    }
                }
            }
        }
        // Nobody knows it, and nobody minds.
        assert_eq!(made_of(folder.path(), &with(&plain, "embedding_sice", &json!(7))), expected);
    }
}

#[test]
fn what_a_config_json_leaves_out_is_transformers_default() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in Architecture::ALL {
        let plain = plain(architecture);
        let expected = made_of(folder.path(), &plain).unwrap();
        for (version, defaults) in of_transformers(architecture) {
            let mut config = plain.clone();
            for (key, value) in defaults.into_iter().filter(|(_, value)| !value.is_null()) {
                if key != "model_type" {
                    config[key] = value;
                }
            }
            assert!(config.as_object().unwrap().len() > 20, "{config}");
            assert_eq!(made_of(folder.path(), &config).unwrap(), expected, "{version}");
        }
        std::fs::write(folder.path().join("config.json"), plain.to_string()).unwrap();
        let remarks = ModelConfig::read(folder.path(), || Ok(vec![])).unwrap().remarks.join("\n");
        let heads = if architecture == Architecture::DistilBert {
            "n_heads"
        } else {
            "num_attention_heads"
        };
        for part in ["max_position_embeddings = 512", &format!("{heads} = 12"), "defaults"] {
            assert!(remarks.contains(part), "{part}: {remarks}");
        }
    }
}

/// DistilBERT's keys have BERT's names too, and those win, as in transformers.
#[test]
fn distilbert_takes_berts_names() {
    let folder = tempfile::tempdir().unwrap();
    let of = |config: Value| made_of(folder.path(), &config).unwrap();
    let own = json!({"model_type": "distilbert", "dim": 96, "n_layers": 2, "n_heads": 3});
    let others = json!({"model_type": "distilbert", "dim": 7, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3});
    assert_eq!(of(own), of(others));
}

#[test]
fn a_config_json_without_model_type_is_told_by_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let read = |config: &Value, names: &[&str]| {
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        ModelConfig::read(folder.path(), || Ok(names)).map_err(|error| error.to_string())
    };
    let (layer, transformer) =
        ("encoder.layer.0.output.dense.bias", "transformer.layer.0.ffn.lin1.bias");
    let bert = json!({"hidden_size": 96, "num_attention_heads": 12});
    let distilbert = json!({"dim": 96, "n_heads": 12});
    for (config, names, expected) in [
        (
            &bert,
            vec!["cls.predictions.bias", "bert.encoder.layer.0.output.dense.bias"],
            Architecture::Bert,
        ),
        (
            &bert,
            vec!["lm_head.bias", "roberta.encoder.layer.0.output.dense.bias"],
            Architecture::Roberta,
        ),
        (
            &distilbert,
            vec!["distilbert.transformer.layer.0.ffn.lin1.bias"],
            Architecture::DistilBert,
        ),
        (&distilbert, vec![transformer], Architecture::DistilBert),
        (&with(&bert, "architectures", &json!(["BertModel"])), vec![layer], Architecture::Bert),
        (
            &with(&bert, "architectures", &json!(["RobertaForMaskedLM"])),
            vec![layer],
            Architecture::Roberta,
        ),
    ] {
        let found = read(config, &names).unwrap();
        assert_eq!(found.architecture, expected);
        let remark = format!("taken for {:?}", expected.model_type());
        assert!(found.remarks.iter().any(|said| said.contains(&remark)), "{:?}", found.remarks);
    }
    for (config, names) in [
        // BERT and RoBERTa have these alike.
        (&bert, vec![layer]),
        (&bert, vec![]),
        (&distilbert, vec![layer]),
        (&bert, vec!["bert.encoder.layer.0.x.bias", "roberta.encoder.layer.0.x.bias"]),
        (
            &with(&bert, "architectures", &json!(["RobertaModel"])),
            vec!["bert.encoder.layer.0.x.bias"],
        ),
        (&with(&bert, "architectures", &json!(["BertGenerationEncoder"])), vec![layer]),
        (&json!({"n_embd": 96}), vec!["h.0.attn.c_attn.bias"]),
    ] {
        let error = read(config, &names).unwrap_err();
        for part in ["config.json", "model_type: found nothing", "add", "\"model_type\": \"bert\""]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn an_inferred_model_is_said_and_predicts_the_same() {
    let scratch = with_head("tiny-bert");
    let predict = || scratch.bitfit(&["predict", "--model", "base", "a good film"]);
    let named = predict();
    succeeded(&named);
    edit(&scratch, |config| {
        config.remove("model_type");
    });
    let inferred = predict();
    succeeded(&inferred);
    assert_eq!(stdout(&inferred), stdout(&named));
    assert!(
        stderr(&inferred).contains("no model_type there; taken for \"bert\""),
        "{}",
        stderr(&inferred)
    );
    edit(&scratch, |config| {
        config.remove("architectures");
    });
    refused(&predict(), 1, &["model_type: found nothing", "add, say, \"model_type\": \"bert\""]);
}

/// A classifier of three labels, saved whole: `base` of a scratch folder, with the head of the
/// golden files.
fn with_head(name: &str) -> Scratch {
    let scratch = Scratch::of(name);
    let path = scratch.path("base/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    let head = |(name, _): &(String, Tensor)| {
        name.starts_with("classifier.") || name.starts_with("pre_classifier.")
    };
    tensors.extend(golden(&format!("{name}.safetensors")).into_iter().filter(head));
    Tensor::write_safetensors(&tensors, &path).unwrap();
    edit(&scratch, |config| {
        let class = config["architectures"][0]
            .as_str()
            .unwrap()
            .replace("Model", "ForSequenceClassification");
        config["architectures"][0] = class.into();
        config.insert("num_labels".into(), 3.into());
    });
    scratch
}

/// Changes `base/config.json`.
fn edit(scratch: &Scratch, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = scratch.path("base/config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, Value::Object(config).to_string()).unwrap();
}

fn scores(scratch: &Scratch) -> Map<String, Value> {
    let output = scratch.bitfit(&["predict", "--model", "base", "a good film"]);
    succeeded(&output);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    found["scores"].as_object().unwrap().clone()
}

#[test]
fn labels_are_named_as_transformers_names_them() {
    let scratch = with_head("tiny-bert");
    let numbered = scores(&scratch);
    assert_eq!(numbered.keys().collect::<Vec<_>>(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let renamed = |names: Value| {
        edit(&scratch, |config| {
            config.insert("id2label".into(), names);
        });
        let found = scores(&scratch);
        assert!(found.values().eq(numbered.values()), "{found:?}");
        found.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(renamed(json!({"0": "bad", "1": "so-so", "2": "good"})), ["bad", "so-so", "good"]);
    assert_eq!(renamed(json!({"2": 5, "1": 3.5, "0": -1})), ["-1", "3.5", "5"]);
    let refuse = |key: &str, value: Value, parts: &[&str]| {
        edit(&scratch, |config| {
            config.insert("num_labels".into(), 3.into());
            config.remove("id2label");
            config.remove("problem_type");
            config.insert(key.into(), value);
        });
        let output = scratch.bitfit(&["predict", "--model", "base", "a good film"]);
        refused(&output, 1, &[&["config.json"], parts].concat());
        assert!(stderr(&output).len() < 1000, "{}", stderr(&output));
    };
    refuse(
        "id2label",
        json!({"0": "x", "1": "x", "2": "y"}),
        &["id2label", "all different", "\"x\""],
    );
    refuse("id2label", json!({"1": "x", "2": "y"}), &["id2label", "a name for each number from 0"]);
    refuse(
        "id2label",
        json!(["x".repeat(100_000)]),
        &["id2label", "a name for each number from 0"],
    );
    let many: Map<_, _> = (0..10_001).map(|i| (i.to_string(), json!(i.to_string()))).collect();
    refuse("id2label", many.into(), &["id2label", "10000 labels at most"]);
    refuse("num_labels", json!(1_000_000_000), &["num_labels", "1 to 10000"]);
    refuse(
        "num_labels",
        json!(5),
        &["5 labels by id2label and num_labels", "classifier.weight", "3 rows"],
    );
    refuse("num_labels", json!(null), &["2 labels by id2label and num_labels", "3 rows"]);
    refuse("problem_type", json!("ranking"), &["problem_type", "ranking", "regression"]);
    refuse("problem_type", json!(7), &["problem_type", "7", "regression"]);
}

#[test]
fn a_head_is_used_where_nobody_says_what_the_model_is() {
    for name in crate::common::TINY {
        let scratch = with_head(name);
        let named = scores(&scratch);
        for silence in [json!(null), json!([])] {
            edit(&scratch, |config| {
                config.insert("architectures".into(), silence);
            });
            let output = scratch.bitfit(&["predict", "--model", "base", "a good film"]);
            assert!(stderr(&output).contains("no architectures there"), "{}", stderr(&output));
            assert_eq!(scores(&scratch), named, "{name}");
        }
        // Half a head is a token classifier's, say.
        let path = scratch.path("base/model.safetensors");
        let mut tensors = Tensor::read_safetensors(&path).unwrap();
        tensors.retain(|(name, _)| {
            !name.ends_with("classifier.bias") && !name.ends_with("out_proj.bias")
        });
        Tensor::write_safetensors(&tensors, &path).unwrap();
        refused(
            &scratch.bitfit(&["predict", "--model", "base", "x"]),
            1,
            &["a base without a task"],
        );
    }
    // Another task's head may have the same names.
    let scratch = with_head("tiny-bert");
    edit(&scratch, |config| {
        config.insert("architectures".into(), json!(["BertForTokenClassification"]));
    });
    refused(&scratch.bitfit(&["predict", "--model", "base", "x"]), 1, &["a base without a task"]);
}

/// Versions 4 and 5 of transformers differ in it: what version 5 computes, and a line.
#[test]
fn positions_that_are_null_are_those_of_transformers_5() {
    let scratch = with_head("tiny-bert");
    let absolute = scores(&scratch);
    edit(&scratch, |config| {
        config.insert("position_embedding_type".into(), Value::Null);
    });
    assert_eq!(scores(&scratch), absolute);
    let output = scratch.bitfit(&["inspect", "--model", "base"]);
    assert!(
        stderr(&output).contains("position_embedding_type: null: positions are added"),
        "{}",
        stderr(&output)
    );
    // What is exported says what was computed, to every version.
    let path = scratch.path("base/config.json");
    edit(&scratch, |config| {
        config.remove("model_type");
    });
    let task = Task::saved(&path, Architecture::Bert, false, 512).unwrap().unwrap();
    let written: Value =
        serde_json::from_str(&task.config(&path, Architecture::Bert).unwrap()).unwrap();
    assert_eq!(
        (&written["position_embedding_type"], &written["model_type"]),
        (&json!("absolute"), &json!("bert"))
    );
}

#[test]
fn what_is_refused_is_named() {
    let scratch = Scratch::new();
    for (key, value, parts) in [
        ("pruned_heads", json!({"0": [1]}), &["pruned_heads", "layers that lack heads"][..]),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            &["quantization_config", "float32"],
        ),
        ("add_cross_attention", json!(true), &["add_cross_attention", "an encoder"]),
        ("hidden_act", json!("laplace"), &["hidden_act", "laplace", "gelu_new, gelu_fast"]),
        ("hidden_act", json!(null), &["hidden_act", "null"]),
        ("hidden_act", json!("x".repeat(1 << 20)), &["hidden_act", "xxx...", "gelu"]),
        ("layer_norm_eps", json!(null), &["layer_norm_eps", "null"]),
        ("num_attention_heads", json!(null), &["num_attention_heads", "null", "1 to"]),
        ("pad_token_id", json!("x"), &["pad_token_id", "an id"]),
    ] {
        let other = Scratch::new();
        edit(&other, |config| {
            config.insert(key.into(), value);
        });
        let output = other.bitfit(&["inspect", "--model", "base"]);
        refused(&output, 1, parts);
        assert!(stderr(&output).len() < 1000, "{}", stderr(&output));
    }
    // 12 heads would not divide 32.
    edit(&scratch, |config| {
        config.remove("num_attention_heads");
    });
    let output = scratch.bitfit(&["inspect", "--model", "base"]);
    refused(&output, 1, &["num_attention_heads", "12 is transformers' default", "hidden_size, 32"]);
}

/// A file of a model is regular and small, or refused by its name before it is read.
#[test]
fn a_config_json_that_is_no_small_file_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path("base/config.json");
    let refuse = |parts: &[&str]| {
        let (output, peak) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
        refused(&output, 1, &[&["config.json"], parts].concat());
        assert!(peak < 500, "{peak} MiB");
        let _ = std::fs::remove_file(&path);
    };
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    refuse(&["a device"]);
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    refuse(&["a pipe"]);
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    refuse(&["1073741824 bytes", "16777216 at most"]);
    std::os::unix::fs::symlink("gone.json", &path).unwrap();
    refuse(&["a link to gone.json, which is not there"]);
    std::fs::create_dir(&path).unwrap();
    refuse(&["a directory"]);
}
