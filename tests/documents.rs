//! The files that are written from the code: schemas, the configuration's reference, manual pages
//! and completions; and the help.

use crate::common::{Scratch, refused, root, stdout, succeeded};
use bitfit::internal::config::{self, Run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every file below a directory, by its path from there.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&config::schema()).unwrap()
}

fn as_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn documents_are_those_of_the_code() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["docs", "docs"]));
    let (written, kept) = (tree(&scratch.path("docs")), tree(&root().join("docs")));
    assert!(written.len() >= 16, "{:?}", written.keys());
    for (name, bytes) in &written {
        assert!(
            kept.get(name) == Some(bytes),
            "docs/{} differs from the code; run target/release/bitfit docs docs",
            name.display()
        );
    }
    for folder in ["man", "completions"] {
        let strays: Vec<_> = kept
            .keys()
            .filter(|name| name.starts_with(folder) && !written.contains_key(*name))
            .collect();
        assert!(strays.is_empty(), "no command has these: {strays:?}");
    }
}

/// Checked by `mandoc -Tlint` if it is installed, and by its most frequent complaints.
#[test]
fn the_manuals_pages_are_clean() {
    let pages = shipped(&root().join("docs/man"), "1");
    assert!(pages.len() >= 9);
    for path in pages {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut literal = false;
        for line in text.lines() {
            literal = line == ".nf" || (literal && line != ".fi");
            let short = literal || line.starts_with('.') || (1..=80).contains(&line.len());
            assert!(short && line.trim_end() == line, "{path:?}: {line:?}");
        }
        match std::process::Command::new("mandoc").args(["-Tlint"]).arg(&path).output() {
            Err(_) => eprintln!("skipped: no mandoc"),
            Ok(output) => assert!(output.stdout.is_empty(), "{}", stdout(&output)),
        }
    }
}

/// The files with an ending in a folder and its subfolders.
fn shipped(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = tree(folder).into_keys().map(|name| folder.join(name)).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == ending));
    found
}

#[test]
fn every_shipped_configuration_names_its_schema_and_fits_it() {
    let files = shipped(&root().join("configs"), "toml");
    assert!(files.len() >= 17);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let hint = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let schema = path.parent().unwrap().join(hint.unwrap_or_else(|| panic!("{path:?}")));
        let schema: Value = serde_json::from_slice(
            &std::fs::read(&schema).unwrap_or_else(|e| panic!("{schema:?}: {e}")),
        )
        .unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&as_json(&text)).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{path:?}: {problems:?}");
    }
}

const GOOD: &str = "[model]\nmodel_name_or_path = \"base\"\n[data]\ntrain = \"train.tsv\"\n[training]\noutput_dir = \"run\"\n";

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let (scratch, validator) = (Scratch::new(), validator());
    assert!(validator.is_valid(&as_json(GOOD)));
    for line in [
        "learning_rte = 1e-3",
        "weight_decay = \"fast\"",
        "adam_epsilon = -1.0",
        "seed = -3",
        "seed = 1.5",
        "metric_for_best_model = \"acuracy\"",
        "adam_beta2 = 1.0",
        "device = \"tpu\"",
        "precision = \"fp8\"",
        "class_weights = \"even\"",
        "class_weights = [\"1\"]",
        "lr_scheduler_type = \"polynomial\"",
        "[bitfit]\ntrain_bias_only = false",
        "[bitfit]\nbias_terms = [\"head\"]",
        "[bitfit]\ninclude = \"all\"",
        "[bitfti]\nexclude = []",
    ] {
        let text = format!("{GOOD}{line}\n");
        assert!(!validator.is_valid(&as_json(&text)), "{line}");
        let path = scratch.write("broken.toml", text);
        assert!(Run::read(&path, &[]).is_err(), "{line}");
    }
    for missing in ["model_name_or_path", "train =", "output_dir", "[model]"] {
        let text: String = GOOD
            .lines()
            .filter(|l| !l.starts_with(missing))
            .fold(String::new(), |a, l| a + l + "\n");
        assert!(!validator.is_valid(&as_json(&text)), "{missing}");
    }
    // The schema takes what the program takes: other names, both forms of class weights.
    for line in [
        "lr_scheduler_type = \"constant_with_warmup\"",
        "class_weights = [1, 2.5]",
        "class_weights = {a = 1, b = 2}",
        "class_weights = \"balanced\"",
        "device = \"cpu\"",
        "max_steps = -1",
        "[bitfit]\nbias_terms = [\"query\", \"output\"]",
    ] {
        let text = format!("{GOOD}{line}\n");
        let problems: Vec<_> =
            validator.iter_errors(&as_json(&text)).map(|e| e.to_string()).collect();
        assert!(problems.is_empty(), "{line}: {problems:?}");
        Run::read(&scratch.write("good.toml", text), &[]).unwrap();
    }
}

/// Each bound in the schema is a bound in the program: both refuse values beyond it.
#[test]
fn bounds_in_the_schema_are_the_programs() {
    let (scratch, schema, validator) = (Scratch::new(), config::schema(), validator());
    let mut count = 0;
    for (section, part) in schema["properties"].as_object().unwrap() {
        assert_eq!(part["additionalProperties"], false, "{section}");
        for (key, property) in part["properties"].as_object().unwrap() {
            assert!(
                property["description"].as_str().is_some_and(|d| d.len() > 5),
                "{section}.{key}"
            );
            assert!(!property.to_string().contains("null"), "{section}.{key}");
            let beyond = [
                ("minimum", -1.0),
                ("exclusiveMinimum", 0.0),
                ("maximum", 1.0),
                ("exclusiveMaximum", 0.0),
            ];
            for (bound, step) in beyond {
                let Some(limit) = property.get(bound).and_then(Value::as_f64) else { continue };
                let value = limit + step;
                let whole = property["type"] == "integer";
                let value = if whole { json!(value as i64) } else { json!(value) };
                let mut config = as_json(GOOD);
                config[section][key] = value.clone();
                assert!(!validator.is_valid(&config), "{section}.{key} = {value}");
                let text = toml::to_string(&config).unwrap();
                let found = Run::read(&scratch.write("beyond.toml", &text), &[]);
                assert!(found.is_err(), "{section}.{key} = {value} is refused by the schema alone");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn help_teaches() {
    let scratch = Scratch::new();
    let help = |args: &[&str]| {
        let output = scratch.bitfit(args);
        succeeded(&output);
        stdout(&output)
    };
    let all = help(&["--help"]);
    for part in ["bitfit predict --run", "HF_TOKEN", "Exit codes", "delta"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert!(!all.contains("\n  docs "), "the command is for developers of bitfit");
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        let text = help(&[name, "--help"]);
        assert!(text.contains("Examples:\n  bitfit"), "{name}: {text}");
    }
    // The smallest configuration in the help is valid.
    let text = help(&["train", "--help"]);
    let (_, lesson) = text.split_once("The smallest configuration:\n").unwrap();
    let (lesson, _) = lesson.split_once("\n\n").unwrap();
    let path = scratch.write("smallest.toml", lesson);
    Run::read(&path, &[]).unwrap();
    let keys = text.split_once("Keys that are often set:\n").unwrap().1;
    for key in keys.lines().take_while(|line| !line.is_empty()) {
        let name = key.split_whitespace().next().unwrap().trim_end_matches(',');
        let Some((section, key)) = name.split_once('.').filter(|(s, _)| !s.contains('/')) else {
            continue;
        };
        assert!(!config::schema()["properties"][section]["properties"][key].is_null(), "{name}");
    }
    refused(&scratch.bitfit(&["completions", "tcsh"]), 2, &["bash", "zsh", "fish"]);
}
