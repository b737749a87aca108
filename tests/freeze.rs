//! Bias groups, the plan, the counts.

use crate::common::tiny_base;
use bitfit::freeze::{FreezePlan, Group, Layout, Switches, thousands};
use bitfit::models::{Classifier, ModelConfig};
use std::collections::BTreeMap;
use tch::{Device, nn};

/// The whole table for a BERT of one layer; more layers repeat it.
const TABLE: [(&str, Group); 25] = [
    ("bert.embeddings.LayerNorm.bias", Group::LayerNorm),
    ("bert.embeddings.LayerNorm.weight", Group::LayerNorm),
    ("bert.embeddings.position_embeddings.weight", Group::Embeddings),
    ("bert.embeddings.token_type_embeddings.weight", Group::Embeddings),
    ("bert.embeddings.word_embeddings.weight", Group::Embeddings),
    ("bert.encoder.layer.0.attention.output.LayerNorm.bias", Group::LayerNorm),
    ("bert.encoder.layer.0.attention.output.LayerNorm.weight", Group::LayerNorm),
    ("bert.encoder.layer.0.attention.output.dense.bias", Group::Attention),
    ("bert.encoder.layer.0.attention.output.dense.weight", Group::Attention),
    ("bert.encoder.layer.0.attention.self.key.bias", Group::Attention),
    ("bert.encoder.layer.0.attention.self.key.weight", Group::Attention),
    ("bert.encoder.layer.0.attention.self.query.bias", Group::Attention),
    ("bert.encoder.layer.0.attention.self.query.weight", Group::Attention),
    ("bert.encoder.layer.0.attention.self.value.bias", Group::Attention),
    ("bert.encoder.layer.0.attention.self.value.weight", Group::Attention),
    ("bert.encoder.layer.0.intermediate.dense.bias", Group::Feedforward),
    ("bert.encoder.layer.0.intermediate.dense.weight", Group::Feedforward),
    ("bert.encoder.layer.0.output.LayerNorm.bias", Group::LayerNorm),
    ("bert.encoder.layer.0.output.LayerNorm.weight", Group::LayerNorm),
    ("bert.encoder.layer.0.output.dense.bias", Group::Feedforward),
    ("bert.encoder.layer.0.output.dense.weight", Group::Feedforward),
    ("bert.pooler.dense.bias", Group::Other),
    ("bert.pooler.dense.weight", Group::Other),
    ("classifier.bias", Group::Classifier),
    ("classifier.weight", Group::Classifier),
];

fn config(layers: i64, hidden: i64, inner: i64, vocabulary: i64) -> ModelConfig {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"{{"model_type": "bert", "vocab_size": {vocabulary}, "hidden_size": {hidden}, "num_hidden_layers": {layers},
            "num_attention_heads": 2, "intermediate_size": {inner}, "max_position_embeddings": 512}}"#
    );
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    ModelConfig::read(folder.path()).unwrap()
}

fn shapes(config: &ModelConfig) -> BTreeMap<String, Vec<i64>> {
    let store = nn::VarStore::new(Device::Cpu);
    Classifier::new(&store.root(), config, 2).unwrap();
    store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

fn head() -> Vec<String> {
    vec!["classifier.bias".into(), "classifier.weight".into()]
}

#[test]
fn every_parameter_is_in_the_group_its_name_says() {
    let names: Vec<String> = shapes(&config(1, 8, 16, 10)).into_keys().collect();
    assert_eq!(names, TABLE.map(|(name, _)| name));
    for (name, group) in TABLE {
        assert_eq!(Group::of(name).unwrap(), group, "{name}");
    }
    // Patterns are anchored at both ends.
    for name in ["x.classifier.bias", "classifier.bias.x", "bert.encoder.layer.x.output.dense.bias"]
    {
        assert!(Group::of(name).is_err(), "{name}");
    }
}

#[test]
fn published_models_have_their_published_counts() {
    for (config, all, encoder_biases) in [
        (config(2, 128, 512, 30522), 4_386_178, 3_072),
        (config(6, 384, 1536, 30522), 22_713_986, 26_112),
        (config(12, 768, 3072, 30522), 109_483_778, 102_912),
    ] {
        let counts =
            FreezePlan::new(&shapes(&config), &head(), &Switches::default()).unwrap().counts();
        assert_eq!(counts.all, all);
        assert_eq!(counts.bias, encoder_biases + 2);
        assert_eq!(counts.trainable, encoder_biases + 2 * config.hidden_size as u64 + 2);
        assert_eq!(counts.frozen + counts.trainable, counts.all);
        assert_eq!(counts.bias + counts.weight, counts.all);
        assert_eq!(counts.groups.iter().map(|g| g.bias + g.weight).sum::<u64>(), counts.all);
        assert_eq!(counts.groups.iter().map(|g| g.trainable).sum::<u64>(), counts.trainable);
        // A gradient and two moments, 4 bytes each.
        assert_eq!(counts.full_training_bytes - counts.training_bytes, 12 * counts.frozen);
    }
}

fn trained(switches: &Switches) -> Vec<String> {
    let plan = FreezePlan::new(&shapes(&config(1, 8, 16, 10)), &head(), switches).unwrap();
    plan.trainable().map(|p| p.name.clone()).collect()
}

#[test]
fn switches_turn_groups_on() {
    let only = |group| Switches {
        biases: [group].into(),
        classifier_weight: false,
        ..Switches::default()
    };
    for (name, group) in TABLE {
        let trains = trained(&Switches::default()).contains(&name.to_owned());
        assert_eq!(trains, name.ends_with(".bias") || name == "classifier.weight", "{name}");
        if group != Group::Embeddings {
            assert_eq!(
                trained(&only(group)).contains(&name.to_owned()),
                name.ends_with(".bias"),
                "{name}"
            );
        }
    }
    assert_eq!(trained(&only(Group::Other)), ["bert.pooler.dense.bias"]);
}

#[test]
fn include_and_exclude_are_anchored() {
    let none = Switches { biases: [].into(), classifier_weight: false, ..Switches::default() };
    let include =
        Switches { include: vec![r".*\.layer\.\d+\.output\.dense\.bias".into()], ..none.clone() };
    assert_eq!(trained(&include), ["bert.encoder.layer.0.output.dense.bias"]);
    let exclude = Switches { exclude: vec![r".*\.key\.bias".into()], ..Switches::default() };
    assert_eq!(trained(&exclude).len(), trained(&Switches::default()).len() - 1);
    let error = |switches: &Switches| {
        FreezePlan::new(&shapes(&config(1, 8, 16, 10)), &head(), switches).unwrap_err().to_string()
    };
    let nothing = Switches { include: vec!["key.bias".into()], ..none.clone() };
    assert!(error(&nothing).contains("matches no bias"), "{}", error(&nothing));
    let broken = Switches { include: vec!["(".into()], ..none.clone() };
    assert!(error(&broken).contains("not a regular expression"), "{}", error(&broken));
    assert!(error(&none).contains("nothing would train"), "{}", error(&none));
}

#[test]
fn the_layout_is_sorted_and_aligned() {
    let base = tiny_base();
    let plan = FreezePlan::new(&base.shapes(), &base.new, &Switches::default()).unwrap();
    let layout = Layout::new(plan.trainable());
    assert!(layout.pieces.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 + w[0].2 <= w[1].1));
    assert!(layout.pieces.iter().all(|(_, offset, _)| offset % 16 == 0));
    assert_eq!(layout.pieces.iter().map(|p| p.2 as u64).sum::<u64>(), plan.counts().trainable);
}

#[test]
fn numbers_are_readable() {
    assert_eq!(thousands(0), "0");
    assert_eq!(thousands(999), "999");
    assert_eq!(thousands(1_234_567), "1,234,567");
}
