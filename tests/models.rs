//! `config.json`: what of it is obeyed, what is taken where it is silent, and what is refused;
//! classifiers that were saved whole.

use crate::common::{
    NO_DROPOUT, Scratch, TINY, architecture, device, golden, golden_dir, refused, sequences,
    stderr, stdout, succeeded, tiny_base,
};
use bitfit::internal::bank::Bank;
use bitfit::internal::base::Base;
use bitfit::internal::data::Batch;
use bitfit::internal::freeze::{Places, StepCost, Switches};
use bitfit::internal::methods::{AdapterConfig, AdapterPlacement, LoraConfig, Method};
use bitfit::internal::models::{
    ARCHITECTURES, Architecture, ConfigKeys, EmbeddingNames, HeadSpec, KeyVerdict, LayerNames,
    ModelConfig, Shaping, Spec, Task, TaskType,
};
use bitfit::internal::nn::{Pooling, Precision};
use bitfit::internal::task_model::TaskModel;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
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
    json!({"model_type": architecture.model_type, "architectures": [architecture.class]})
}

/// What scripts/make_golden_config.py found: for each version of transformers, and each
/// architecture, keys with their defaults.
fn of_transformers(architecture: Architecture) -> Vec<(String, Map<String, Value>)> {
    let text = std::fs::read_to_string(golden_dir().join("config.json")).unwrap();
    let versions: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let of = |(version, models): (String, Value)| {
        (version, models[architecture.model_type].as_object().unwrap().clone())
    };
    versions.into_iter().map(of).collect()
}

#[test]
fn every_key_that_transformers_writes_has_a_verdict() {
    for architecture in ARCHITECTURES {
        let known: Vec<_> = architecture.verdicts().map(|(key, _)| *key).collect();
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
    for architecture in ARCHITECTURES {
        let plain = plain(architecture);
        let expected = made_of(folder.path(), &plain);
        assert!(expected.is_ok(), "{expected:?}");
        for (key, verdict) in architecture.verdicts() {
            let outcomes = values
                .each_ref()
                .map(|value| (value, made_of(folder.path(), &with(&plain, key, value))));
            let differs = |outcome: &Result<String, String>| *outcome != expected;
            let name = format!("{architecture:?}, {key}");
            match verdict {
                KeyVerdict::Obeyed => {
                    assert!(outcomes.iter().any(|(_, outcome)| differs(outcome)), "{name}");
                }
                KeyVerdict::WithoutEffect => {
                    let changed = outcomes.iter().find(|(_, outcome)| differs(outcome));
                    assert!(changed.is_none(), "{name}: {changed:?}");
                }
                KeyVerdict::Refused { harmless, expected: reason } => {
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
    for architecture in ARCHITECTURES {
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
        let heads = architecture.keys.num_attention_heads;
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
            architecture("bert"),
        ),
        (
            &bert,
            vec!["lm_head.bias", "roberta.encoder.layer.0.output.dense.bias"],
            architecture("roberta"),
        ),
        (
            &distilbert,
            vec!["distilbert.transformer.layer.0.ffn.lin1.bias"],
            architecture("distilbert"),
        ),
        (&distilbert, vec![transformer], architecture("distilbert")),
        (&with(&bert, "architectures", &json!(["BertModel"])), vec![layer], architecture("bert")),
        (
            &with(&bert, "architectures", &json!(["RobertaForMaskedLM"])),
            vec![layer],
            architecture("roberta"),
        ),
    ] {
        let found = read(config, &names).unwrap();
        assert_eq!(found.architecture, expected);
        let remark = format!("read as {:?}", expected.model_type);
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
    assert!(stderr(&inferred).contains("no model_type; read as \"bert\""), "{}", stderr(&inferred));
    edit(&scratch, |config| {
        config.remove("architectures");
    });
    refused(
        &predict(),
        1,
        &["model_type: found nothing", "add, for example, \"model_type\": \"bert\""],
    );
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
    for name in TINY {
        let scratch = with_head(name);
        let named = scores(&scratch);
        for silence in [json!(null), json!([])] {
            edit(&scratch, |config| {
                config.insert("architectures".into(), silence);
            });
            let output = scratch.bitfit(&["predict", "--model", "base", "a good film"]);
            assert!(stderr(&output).contains("no architectures; read as a"), "{}", stderr(&output));
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
        stderr(&output).contains("position_embedding_type is null: absolute positions are used"),
        "{}",
        stderr(&output)
    );
    // What is exported says what was computed, to every version.
    let path = scratch.path("base/config.json");
    edit(&scratch, |config| {
        config.remove("model_type");
    });
    let task = Task::saved(&path, architecture("bert"), false, 512).unwrap().unwrap();
    let written: Value =
        serde_json::from_str(&task.config(&path, architecture("bert")).unwrap()).unwrap();
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
    refuse(&["1073741824 bytes", "at most 16777216"]);
    std::os::unix::fs::symlink("gone.json", &path).unwrap();
    refuse(&["a link to gone.json, which does not exist"]);
    std::fs::create_dir(&path).unwrap();
    refuse(&["a directory"]);
}

/// BERT under other names: an architecture that this test alone knows.
fn quill() -> Architecture {
    let bert = *architecture("bert");
    Box::leak(Box::new(Spec {
        model_type: "quill",
        class: "QuillForSequenceClassification",
        prefix: "quill",
        embeddings: EmbeddingNames {
            module: "embed",
            word: "words",
            position: "places",
            token_type: Some("kinds"),
            layer_norm: "norm",
        },
        layers: "blocks",
        layer: LayerNames {
            query: "attn.q",
            key: "attn.k",
            value: "attn.v",
            attention_output: "attn.out",
            attention_norm: "attn_norm",
            intermediate: "mlp.up",
            output: "mlp.down",
            output_norm: "mlp_norm",
            attention_adapter: "attn_adapter",
            output_adapter: "mlp_adapter",
        },
        head: HeadSpec { dense: "quill.pool.proj", output: "scores", ..bert.head },
        keys: ConfigKeys { hidden_size: "width", num_hidden_layers: "depth", ..bert.keys },
        ..bert
    }))
}

/// [`quill`]'s name of a tensor of BERT's.
fn in_quill(name: &str) -> String {
    let pairs = [
        ("bert.", "quill."),
        ("embeddings.word_embeddings", "embed.words"),
        ("embeddings.position_embeddings", "embed.places"),
        ("embeddings.token_type_embeddings", "embed.kinds"),
        ("embeddings.LayerNorm", "embed.norm"),
        ("encoder.layer.", "blocks."),
        ("attention.self.query", "attn.q"),
        ("attention.self.key", "attn.k"),
        ("attention.self.value", "attn.v"),
        ("attention.output.adapters.task", "attn_adapter"),
        ("attention.output.dense", "attn.out"),
        ("attention.output.LayerNorm", "attn_norm"),
        ("intermediate.dense", "mlp.up"),
        ("output.adapters.task", "mlp_adapter"),
        ("output.dense", "mlp.down"),
        ("output.LayerNorm", "mlp_norm"),
        ("pooler.dense", "pool.proj"),
        ("classifier.", "scores."),
    ];
    pairs.iter().fold(name.to_owned(), |name, (bert, quill)| name.replace(bert, quill))
}

/// The golden BERT as a [`quill`], in `base` of a scratch folder.
fn renamed() -> Scratch {
    let scratch = Scratch::new();
    let path = scratch.path("base/model.safetensors");
    let tensors = Tensor::read_safetensors(&path).unwrap();
    let tensors: Vec<_> = tensors.iter().map(|(name, t)| (in_quill(name), t)).collect();
    Tensor::write_safetensors(&tensors, &path).unwrap();
    edit(&scratch, |config| {
        config.insert("model_type".into(), "quill".into());
        for (bert, quill) in [("hidden_size", "width"), ("num_hidden_layers", "depth")] {
            let size = config.remove(bert).unwrap();
            config.insert(quill.into(), size);
        }
    });
    scratch
}

/// [`renamed`] as a classifier of three labels, without dropout, with the golden head.
fn renamed_model(scratch: &Scratch) -> TaskModel {
    let known = [&ARCHITECTURES[..], &[quill()]].concat();
    let base = Base::read_among(&known, &scratch.path("base"), None, device()).unwrap();
    // Every bias and LayerNorm has a place in a task's row.
    let again = Base::read_among(&known, &scratch.path("base"), None, device()).unwrap();
    assert!(Bank::new(again, Precision::Fp32).is_ok());
    let mut model = TaskModel::new(&base, 3, Pooling::First, Some(NO_DROPOUT)).unwrap();
    let golden = golden("tiny-bert.safetensors");
    assert_eq!(model.new, ["scores.bias", "scores.weight"]);
    for leaf in ["bias", "weight"] {
        model.set(&format!("scores.{leaf}"), &golden[&format!("classifier.{leaf}")]).unwrap();
    }
    model
}

/// The logits of the golden texts, and after a backward pass the gradients, by name.
fn logits_and_gradients(model: &TaskModel) -> (Tensor, BTreeMap<String, Tensor>) {
    let golden = golden("tiny-bert.safetensors");
    let (packed, _) = Batch::new(&sequences(&golden)).to_device(device()).unwrap();
    let logits = model.classifier.forward(&packed).unwrap();
    let (task, shaping) = (TaskType::Classification, Shaping::default());
    task.loss(&logits, &golden["labels"], &shaping, 7.0).unwrap().backward();
    let variables = model.store.variables().into_iter();
    let trained = variables.filter(|(_, variable)| variable.requires_grad());
    (logits.detach(), trained.map(|(name, variable)| (name, variable.grad())).collect())
}

/// Names are all that a spec must say where nothing else differs: the numbers are BERT's.
#[test]
fn an_architecture_that_differs_in_names_alone_is_a_spec() {
    let scratch = renamed();
    for method in [
        Method::Bitfit,
        Method::Full,
        Method::Head,
        Method::LayerNorm,
        Method::Lora(LoraConfig::default()),
        Method::Adapter(AdapterConfig::new(AdapterPlacement::Houlsby)),
    ] {
        let (mut bert, mut other) = (tiny_base(), renamed_model(&scratch));
        let settled = [&bert, &other].map(|model| method.settled(model.config.architecture));
        for (model, method) in [&mut bert, &mut other].into_iter().zip(&settled) {
            method.add(model).unwrap();
        }
        // What a method adds starts with the same values.
        settled[0].initialize(&mut bert, 7).unwrap();
        let variables = bert.store.variables();
        for name in bert.added.clone() {
            other.set(&in_quill(&name), &variables[&name]).unwrap();
        }
        let switches = Switches::default();
        let plans = [&bert, &other].map(|model| method.plan(model, &switches).unwrap());
        let [own, theirs] = &plans;
        assert_eq!(theirs.counts().to_string(), own.counts().to_string(), "{method}");
        assert_eq!(
            StepCost::of(theirs, &other.config, Pooling::First, 20.0),
            StepCost::of(own, &bert.config, Pooling::First, 20.0)
        );
        assert_eq!(theirs.frozen_layers(), own.frozen_layers());
        let places = Places::new(other.config.architecture).unwrap();
        for parameter in own.parameters() {
            let name = in_quill(&parameter.name);
            assert_eq!(places.of(&name).unwrap(), parameter.place, "{name}");
            let found = theirs.parameters().iter().find(|p| p.name == name).unwrap();
            assert_eq!((found.trains, &found.shape), (parameter.trains, &parameter.shape));
            assert!(places.of(&parameter.name).is_err(), "{name}: BERT's are not its own");
        }
        own.apply(&mut bert.store).unwrap();
        theirs.apply(&mut other.store).unwrap();
        let (expected, found) = (logits_and_gradients(&bert), logits_and_gradients(&other));
        assert_eq!(found.0, expected.0, "{method}");
        assert_eq!(found.1.len(), expected.1.len(), "{method}");
        for (name, gradient) in expected.1 {
            assert_eq!(found.1[&in_quill(&name)], gradient, "{method}: {name}");
        }
    }
}

#[test]
fn a_model_type_is_one_of_those_that_are_known() {
    let scratch = renamed();
    let known = [&ARCHITECTURES[..], &[quill()]].concat();
    let read = |known: &[Architecture]| {
        let read = ModelConfig::read_among(known, &scratch.path("base"), || Ok(vec![]));
        read.map_err(|error| error.to_string())
    };
    assert_eq!(read(&known).unwrap().architecture.model_type, "quill");
    let error = read(&ARCHITECTURES).unwrap_err();
    let message = "model_type: found quill, expected bert, distilbert, roberta";
    assert!(error.ends_with(message), "{error}");
    edit(&scratch, |config| {
        config.insert("model_type".into(), "gpt2".into());
    });
    assert!(read(&known).unwrap_err().ends_with("roberta, quill"), "{}", read(&known).unwrap_err());
    // Without it, the names of the weights tell.
    edit(&scratch, |config| {
        config.remove("model_type");
        config.remove("architectures");
    });
    let base = Base::read_among(&known, &scratch.path("base"), None, device()).unwrap();
    assert_eq!(base.info.config.architecture.model_type, "quill");
    let path = scratch.path("base/model.safetensors");
    let tensors = Tensor::read_safetensors(&path).unwrap();
    let bare = tensors.iter().map(|(name, t)| (name.strip_prefix("quill.").unwrap_or(name), t));
    Tensor::write_safetensors(&bare.collect::<Vec<_>>(), &path).unwrap();
    let bare = Base::read_among(&known, &scratch.path("base"), None, device()).unwrap();
    assert_eq!(bare.info.fingerprint, base.info.fingerprint);
}
