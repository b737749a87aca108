//! Bias groups, the plan, the counts.

use crate::common::tiny_base;
use bitfit::internal::error::Result;
use bitfit::internal::freeze::{
    FreezePlan, Group, Layers, Layout, Parameter, Places, StepCost, Switches,
};
use bitfit::internal::models::{Classifier, ModelConfig, Term};
use bitfit::internal::nn::Pooling;
use bitfit::internal::numbers::thousands;
use std::collections::BTreeMap;
use tch::{Device, nn};

/// The whole table of each architecture with one layer; more layers repeat it.
const TABLES: [(&str, &[(&str, Group)]); 3] =
    [("bert", &BERT), ("distilbert", &DISTILBERT), ("roberta", &ROBERTA)];

const BERT: [(&str, Group); 25] = [
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

const DISTILBERT: [(&str, Group); 24] = [
    ("classifier.bias", Group::Classifier),
    ("classifier.weight", Group::Classifier),
    ("distilbert.embeddings.LayerNorm.bias", Group::LayerNorm),
    ("distilbert.embeddings.LayerNorm.weight", Group::LayerNorm),
    ("distilbert.embeddings.position_embeddings.weight", Group::Embeddings),
    ("distilbert.embeddings.word_embeddings.weight", Group::Embeddings),
    ("distilbert.transformer.layer.0.attention.k_lin.bias", Group::Attention),
    ("distilbert.transformer.layer.0.attention.k_lin.weight", Group::Attention),
    ("distilbert.transformer.layer.0.attention.out_lin.bias", Group::Attention),
    ("distilbert.transformer.layer.0.attention.out_lin.weight", Group::Attention),
    ("distilbert.transformer.layer.0.attention.q_lin.bias", Group::Attention),
    ("distilbert.transformer.layer.0.attention.q_lin.weight", Group::Attention),
    ("distilbert.transformer.layer.0.attention.v_lin.bias", Group::Attention),
    ("distilbert.transformer.layer.0.attention.v_lin.weight", Group::Attention),
    ("distilbert.transformer.layer.0.ffn.lin1.bias", Group::Feedforward),
    ("distilbert.transformer.layer.0.ffn.lin1.weight", Group::Feedforward),
    ("distilbert.transformer.layer.0.ffn.lin2.bias", Group::Feedforward),
    ("distilbert.transformer.layer.0.ffn.lin2.weight", Group::Feedforward),
    ("distilbert.transformer.layer.0.output_layer_norm.bias", Group::LayerNorm),
    ("distilbert.transformer.layer.0.output_layer_norm.weight", Group::LayerNorm),
    ("distilbert.transformer.layer.0.sa_layer_norm.bias", Group::LayerNorm),
    ("distilbert.transformer.layer.0.sa_layer_norm.weight", Group::LayerNorm),
    ("pre_classifier.bias", Group::Classifier),
    ("pre_classifier.weight", Group::Classifier),
];

const ROBERTA: [(&str, Group); 25] = [
    ("classifier.dense.bias", Group::Classifier),
    ("classifier.dense.weight", Group::Classifier),
    ("classifier.out_proj.bias", Group::Classifier),
    ("classifier.out_proj.weight", Group::Classifier),
    ("roberta.embeddings.LayerNorm.bias", Group::LayerNorm),
    ("roberta.embeddings.LayerNorm.weight", Group::LayerNorm),
    ("roberta.embeddings.position_embeddings.weight", Group::Embeddings),
    ("roberta.embeddings.token_type_embeddings.weight", Group::Embeddings),
    ("roberta.embeddings.word_embeddings.weight", Group::Embeddings),
    ("roberta.encoder.layer.0.attention.output.LayerNorm.bias", Group::LayerNorm),
    ("roberta.encoder.layer.0.attention.output.LayerNorm.weight", Group::LayerNorm),
    ("roberta.encoder.layer.0.attention.output.dense.bias", Group::Attention),
    ("roberta.encoder.layer.0.attention.output.dense.weight", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.key.bias", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.key.weight", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.query.bias", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.query.weight", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.value.bias", Group::Attention),
    ("roberta.encoder.layer.0.attention.self.value.weight", Group::Attention),
    ("roberta.encoder.layer.0.intermediate.dense.bias", Group::Feedforward),
    ("roberta.encoder.layer.0.intermediate.dense.weight", Group::Feedforward),
    ("roberta.encoder.layer.0.output.LayerNorm.bias", Group::LayerNorm),
    ("roberta.encoder.layer.0.output.LayerNorm.weight", Group::LayerNorm),
    ("roberta.encoder.layer.0.output.dense.bias", Group::Feedforward),
    ("roberta.encoder.layer.0.output.dense.weight", Group::Feedforward),
];

fn config(kind: &str, layers: i64, hidden: i64, inner: i64, vocabulary: i64) -> ModelConfig {
    let folder = tempfile::tempdir().unwrap();
    let sizes = if kind == "distilbert" {
        ["dim", "n_layers", "n_heads", "hidden_dim"]
    } else {
        ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    };
    let mut config = serde_json::json!({"model_type": kind, "vocab_size": vocabulary, "max_position_embeddings": 512});
    for (key, size) in sizes.into_iter().zip([hidden, layers, 2, inner]) {
        config[key] = size.into();
    }
    if kind == "roberta" {
        config["max_position_embeddings"] = 514.into();
        config["type_vocab_size"] = 1.into();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    ModelConfig::read(folder.path(), || Ok(vec![])).unwrap()
}

fn shapes(config: &ModelConfig) -> BTreeMap<String, Vec<i64>> {
    let store = nn::VarStore::new(Device::Cpu);
    Classifier::new(&store.root(), config, 2, Pooling::First).unwrap();
    store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// The head's tensors, which no base has.
fn head(config: &ModelConfig) -> Vec<String> {
    shapes(config).into_keys().filter(|name| config.architecture.in_head(name)).collect()
}

fn plan(config: &ModelConfig, switches: &Switches) -> Result<FreezePlan> {
    FreezePlan::new(config.architecture, &shapes(config), &head(config), switches)
}

fn small(kind: &str) -> ModelConfig {
    config(kind, 1, 8, 16, 10)
}

fn places(kind: &str) -> Places {
    Places::new(small(kind).architecture).unwrap()
}

#[test]
fn every_parameter_is_in_the_group_its_name_says() {
    for (kind, table) in TABLES {
        let places = places(kind);
        let names: Vec<String> = shapes(&small(kind)).into_keys().collect();
        assert!(names.iter().eq(table.iter().map(|(name, _)| name)), "{kind}: {names:?}");
        for (name, group) in table {
            assert_eq!(places.of(name).unwrap().group, *group, "{name}");
        }
    }
    // Patterns are anchored at both ends.
    for name in ["x.classifier.bias", "classifier.bias.x", "bert.encoder.layer.x.output.dense.bias"]
    {
        assert!(places("bert").of(name).is_err(), "{name}");
    }
}

#[test]
fn published_models_have_their_published_counts() {
    for (config, all, encoder_biases, head_size) in [
        (config("bert", 2, 128, 512, 30522), 4_386_178, 3_072, 258),
        (config("bert", 6, 384, 1536, 30522), 22_713_986, 26_112, 770),
        (config("bert", 12, 768, 3072, 30522), 109_483_778, 102_912, 1_538),
        (config("distilbert", 6, 768, 3072, 30522), 66_955_010, 51_456, 592_130),
        (config("roberta", 12, 768, 3072, 50265), 124_647_170, 102_144, 592_130),
    ] {
        let counts = plan(&config, &Switches::default()).unwrap().counts();
        assert_eq!(counts.all, all);
        assert_eq!(counts.trainable, encoder_biases + head_size);
        assert_eq!(counts.frozen + counts.trainable, counts.all);
        assert_eq!(counts.bias + counts.weight, counts.all);
        assert_eq!(counts.groups.iter().map(|g| g.bias + g.weight).sum::<u64>(), counts.all);
        assert_eq!(counts.groups.iter().map(|g| g.trainable).sum::<u64>(), counts.trainable);
        // A gradient and two moments, 4 bytes each.
        assert_eq!(counts.full_training_bytes - counts.training_bytes, 12 * counts.frozen);
    }
}

fn trained(switches: &Switches) -> Vec<String> {
    trained_of("bert", switches)
}

fn trained_of(kind: &str, switches: &Switches) -> Vec<String> {
    let config = small(kind);
    let plan = plan(&config, switches).unwrap();
    plan.trainable().map(|p| p.name.clone()).collect()
}

#[test]
fn switches_turn_groups_on() {
    let only = |group| Switches {
        biases: [group].into(),
        classifier_weight: false,
        ..Switches::default()
    };
    for (kind, table) in TABLES {
        let all = trained_of(kind, &Switches::default());
        for (name, group) in table {
            let expected = name.ends_with(".bias") || *group == Group::Classifier;
            assert_eq!(all.contains(&(*name).to_owned()), expected, "{name}");
        }
        for group in Group::ALL {
            let biases = table.iter().filter(|(name, g)| *g == group && name.ends_with(".bias"));
            let expected: Vec<&str> = biases.map(|(name, _)| *name).collect();
            if !expected.is_empty() {
                assert_eq!(trained_of(kind, &only(group)), expected);
            }
        }
    }
    assert_eq!(trained(&only(Group::Other)), ["bert.pooler.dense.bias"]);
}

/// The biases of each of the paper's subsets, in a layer of each architecture.
const TERMS: [(Term, &str, &str); 8] = [
    (Term::Query, "attention.self.query", "attention.q_lin"),
    (Term::Key, "attention.self.key", "attention.k_lin"),
    (Term::Value, "attention.self.value", "attention.v_lin"),
    (Term::AttentionOutput, "attention.output.dense", "attention.out_lin"),
    (Term::AttentionLayerNorm, "attention.output.LayerNorm", "sa_layer_norm"),
    (Term::Intermediate, "intermediate.dense", "ffn.lin1"),
    (Term::Output, "output.dense", "ffn.lin2"),
    (Term::OutputLayerNorm, "output.LayerNorm", "output_layer_norm"),
];

/// The biases of the encoder that train with these terms alone, in two layers.
fn encoder_biases(kind: &str, terms: &[Term], layers: Option<&str>) -> Vec<String> {
    let config = config(kind, 2, 8, 16, 10);
    let switches = Switches {
        terms: terms.iter().copied().collect(),
        layers: layers.map(|text| Layers::parse(text).unwrap()),
        ..Switches::default()
    };
    let plan = plan(&config, &switches).unwrap();
    let encoder = |p: &&Parameter| p.place.term.is_some();
    plan.trainable().filter(encoder).map(|p| p.name.clone()).collect()
}

#[test]
fn each_subset_of_the_paper_is_exactly_its_biases() {
    for kind in ["bert", "distilbert", "roberta"] {
        let place = if kind == "distilbert" { "transformer" } else { "encoder" };
        let of = |layer: usize, bert: &str, distilbert: &str| {
            let module = if kind == "distilbert" { distilbert } else { bert };
            format!("{kind}.{place}.layer.{layer}.{module}.bias")
        };
        for (term, bert, distilbert) in TERMS {
            let both = [of(0, bert, distilbert), of(1, bert, distilbert)];
            assert_eq!(encoder_biases(kind, &[term], None), both, "{term:?}");
            assert_eq!(encoder_biases(kind, &[term], Some("1")), both[1..], "{term:?}");
        }
        let embeddings = format!("{kind}.embeddings.LayerNorm.bias");
        let found = encoder_biases(kind, &[Term::EmbeddingsLayerNorm], None);
        assert_eq!(found, std::slice::from_ref(&embeddings));
        // Query and intermediate, the paper's half: with layers named, the embeddings' LayerNorm is
        // in none.
        let half = encoder_biases(kind, &[Term::Query, Term::Intermediate], None);
        assert_eq!(half.len(), 4);
        let mut all: Vec<String> = TERMS
            .iter()
            .flat_map(|(_, bert, distilbert)| [0, 1].map(|layer| of(layer, bert, distilbert)))
            .chain([embeddings.clone()])
            .collect();
        all.sort();
        assert_eq!(encoder_biases(kind, &Term::ALL, None), all);
        all.retain(|name| *name != embeddings);
        assert_eq!(encoder_biases(kind, &Term::ALL, Some("0-")), all);
    }
}

/// At BERT's widths the paper's query and intermediate are somewhat less than half of the encoder's
/// biases.
#[test]
fn query_and_intermediate_are_the_papers_half() {
    let config = config("bert", 12, 768, 3072, 10);
    let count = |terms: &[Term]| {
        let switches = Switches { terms: terms.iter().copied().collect(), ..Switches::default() };
        let plan = plan(&config, &switches).unwrap();
        plan.trainable().filter(|p| p.place.term.is_some()).map(Parameter::numel).sum::<u64>()
    };
    assert_eq!(count(&[Term::Query, Term::Intermediate]), 12 * (768 + 3072));
    assert_eq!(count(&Term::ALL), 102_912 - 768);
}

#[test]
fn layers_are_numbers_and_ranges() {
    let chosen = |text| {
        let layers = Layers::parse(text).unwrap();
        (0..8).filter(|&layer| layers.contains(layer)).collect::<Vec<_>>()
    };
    assert_eq!(chosen("4-5"), [4, 5]);
    assert_eq!(chosen("0, 2,6-"), [0, 2, 6, 7]);
    assert_eq!(chosen("-1"), [0, 1]);
    for text in ["", "-", "5-4", "a", "1,,2", "1-2-3", "1.5", "-1-"] {
        assert!(Layers::parse(text).is_none(), "{text}");
    }
}

/// The products of a step, counted by hand for one layer below the last.
#[test]
fn backpropagation_is_counted_down_to_what_trains() {
    let config = config("bert", 2, 8, 16, 10);
    let (h, i, n) = (8.0, 16.0, 5.0);
    let cost = |terms: &[Term], layers: Option<&str>| {
        let switches = Switches {
            terms: terms.iter().copied().collect(),
            layers: layers.map(|text| Layers::parse(text).unwrap()),
            ..Switches::default()
        };
        let plan = plan(&config, &switches).unwrap();
        StepCost::of(&plan, &config, Pooling::First, n)
    };
    let first = n * (4.0 * h * h + 2.0 * h * i) + 2.0 * n * n * h;
    let last = 2.0 * n * h * h + 2.0 * h * h + 2.0 * h * i + 2.0 * n * h;
    let all = cost(&Term::ALL, None);
    assert_eq!(all.forward, first + last);
    // Of each of attention's two products both factors have a gradient.
    assert_eq!(all.backward, first + 2.0 * n * n * h + last + 2.0 * n * h);
    assert_eq!((all.saved(), all.lowest_layer), (0.0, None));
    // The last layer alone: nothing below its projections.
    let top = cost(&Term::ALL, Some("1"));
    assert_eq!(top.backward, h * h + 2.0 * h * i + 4.0 * n * h);
    assert_eq!(top.lowest_layer, Some(1));
    // Its last bias: no product at all.
    assert_eq!(cost(&[Term::OutputLayerNorm], Some("1")).backward, 0.0);
    // The value's bias below: the scores have no gradient in its layer.
    let value = cost(&[Term::Value], Some("0"));
    assert_eq!(value.backward, n * n * h + n * (h * h + 2.0 * h * i) + last + 2.0 * n * h);
}

#[test]
fn include_and_exclude_are_anchored() {
    let none = Switches { biases: [].into(), classifier_weight: false, ..Switches::default() };
    let include =
        Switches { include: vec![r".*\.layer\.\d+\.output\.dense\.bias".into()], ..none.clone() };
    assert_eq!(trained(&include), ["bert.encoder.layer.0.output.dense.bias"]);
    let exclude = Switches { exclude: vec![r".*\.key\.bias".into()], ..Switches::default() };
    assert_eq!(trained(&exclude).len(), trained(&Switches::default()).len() - 1);
    let error = |switches: &Switches| plan(&small("bert"), switches).unwrap_err().to_string();
    let nothing = Switches { include: vec!["key.bias".into()], ..none.clone() };
    assert!(error(&nothing).contains("matches no bias"), "{}", error(&nothing));
    let broken = Switches { include: vec!["(".into()], ..none.clone() };
    assert!(error(&broken).contains("not a regular expression"), "{}", error(&broken));
    assert!(error(&none).contains("nothing would train"), "{}", error(&none));
}

#[test]
fn the_layout_is_sorted_and_aligned() {
    let base = tiny_base();
    let plan =
        FreezePlan::new(base.config.architecture, &base.shapes(), &base.new, &Switches::default())
            .unwrap();
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
