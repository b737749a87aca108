//! The library without features: what it does, and how it names a feature that something needs.
//! With any feature this is empty.
#![cfg(not(any(feature = "cli", feature = "compare", feature = "hub", feature = "parquet")))]
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use bitfit::{Predictor, Result, RunConfig, Trainer};
use std::path::{Path, PathBuf};

fn tiny_bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-bert")
}

/// A configuration over the tiny base, of two steps, whose rows are in `train.csv` of `folder`.
fn config(folder: &Path) -> RunConfig {
    let rows = "good,yes\nbad,no\nfine,yes\nawful,no\n".repeat(4);
    std::fs::write(folder.join("train.csv"), format!("text,label\n{rows}")).unwrap();
    let mut config = RunConfig::new(tiny_bert(), folder.join("train.csv"), folder.join("run"));
    config.data.max_length = 32_u64.try_into().unwrap();
    config.training.max_steps = 2;
    config
}

fn trained(config: RunConfig) -> Result<()> {
    Trainer::new(config)?.run().map(drop)
}

#[test]
fn a_task_is_trained_and_predicted_with() {
    let folder = tempfile::tempdir().unwrap();
    trained(config(folder.path())).unwrap();
    let predictor = Predictor::open(folder.path().join("run")).unwrap();
    let predictions = predictor.predict(["good"]).unwrap();
    assert!(["yes", "no"].contains(&predictions[0].label.as_deref().unwrap()));
}

#[test]
fn a_parquet_file_names_the_feature_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.data.train = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hub.parquet");
    let error = trained(config).unwrap_err().to_string();
    let expected = "hub.parquet: this build of bitfit lacks the feature `parquet`; build it with that, or give a .csv, .tsv, .jsonl or .json";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn an_id_of_the_hub_names_the_feature_that_asks_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut base = config(folder.path());
    base.model.model_name_or_path = "google-bert/bert-base-uncased".into();
    let mut data = config(folder.path());
    data.data.train = "stanfordnlp/imdb".into();
    let ends = [
        (
            base,
            "google-bert/bert-base-uncased, a model of the Hugging Face Hub: this build of bitfit lacks the feature `hub`; build it with that, or give a model's directory",
        ),
        (
            data,
            "stanfordnlp/imdb, a data set of the Hugging Face Hub: this build of bitfit lacks the feature `hub`; build it with that, or give a file or a folder of labelled texts",
        ),
    ];
    for (config, expected) in ends {
        assert_eq!(trained(config).unwrap_err().to_string(), expected);
    }
}
