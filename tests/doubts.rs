//! Mistakes of a first configuration: each gets the one sentence that helps.

use crate::common::{Scratch, refused, reviews, stderr, succeeded};
use std::fmt::Write;

/// The warnings of a dry run with `sets`.
fn warnings(scratch: &Scratch, sets: &[&str]) -> String {
    let mut args = vec!["--dry-run"];
    sets.iter().for_each(|set| args.extend(["--set", *set]));
    let output = scratch.train(&args);
    succeeded(&output);
    stderr(&output)
        .lines()
        .filter(|line| line.contains("WARN"))
        .map(|l| l.to_owned() + "\n")
        .collect()
}

/// A file of `count` rows: a text by number, and the label that `label` gives.
fn rows(count: usize, label: impl Fn(usize) -> String) -> String {
    (0..count).fold("text\tlabel\n".into(), |mut file, i| {
        let _ = writeln!(file, "the film number {i} was seen\t{}", label(i));
        file
    })
}

fn doubted(scratch: &Scratch, sets: &[&str], parts: &[&str]) {
    let found = warnings(scratch, sets);
    assert!(parts.iter().all(|part| found.contains(part)), "{parts:?}: {found}");
}

#[test]
fn good_data_give_no_warning() {
    assert_eq!(warnings(&Scratch::new(), &[]), "");
}

#[test]
fn an_evaluation_on_the_training_file_is_told() {
    let scratch = Scratch::new();
    let parts = ["train.tsv: 96 of 96 evaluation rows are training rows too", "data.eval"];
    doubted(&scratch, &["data.eval=train.tsv"], &parts);
    // A copy under another name is the same.
    scratch.write("copy.tsv", reviews(96, 1));
    doubted(&scratch, &["data.eval=copy.tsv"], &["copy.tsv: 96 of 96"]);
}

#[test]
fn labels_that_are_no_classes_are_told() {
    let scratch = Scratch::new();
    let told = |label: &dyn Fn(usize) -> String, parts: &[&str]| {
        scratch.write("train.tsv", rows(90, label));
        doubted(&scratch, &["data.eval="], parts);
    };
    let fractions = |i: usize| format!("{}.5", i % 4);
    told(&fractions, &["4 different numbers", "model.task_type = \"regression\""]);
    let alone = |i: usize| if i == 40 { "rare".into() } else { ["a", "b"][i % 2].into() };
    told(&alone, &["\"rare\" has one row", "leave it out"]);
    let joined = |i: usize| ["a", "b", "a;b"][i % 3].to_owned();
    told(&joined, &["\"a;b\" joins other labels", "multi_label", "data.label_separator = \";\""]);
    // Text and label swapped: the labels are texts, in pairs so that rows can be held out.
    let text = |i: usize| format!("a text {} of its own\tgood\n", i / 2);
    let swapped = (0..90).fold("label\ttext\n".to_owned(), |file, i| file + &text(i));
    scratch.write("train.tsv", swapped);
    doubted(&scratch, &["data.eval="], &["45 different labels and 1 different texts", "swapped?"]);
}

#[test]
fn files_that_cannot_be_learned_from_are_refused() {
    let scratch = Scratch::new();
    let refuse = |text: String, parts: &[&str]| {
        scratch.write("train.tsv", text);
        refused(&scratch.train(&["--set", "data.eval="]), 1, parts);
    };
    refuse(rows(90, |_| "same".into()), &["one class only, \"same\"", "two or more"]);
    let headless = rows(90, |i| ["a", "b"][i % 2].into());
    let headless = headless.split_once('\n').unwrap().1.to_owned();
    refuse(headless, &["no column \"text\"", "data.header = false", "by number"]);
}

#[test]
fn few_rows_and_wild_rates_are_told() {
    let scratch = Scratch::new();
    scratch.write("train.tsv", rows(10, |i| ["a", "b"][i % 2].into()));
    doubted(&scratch, &["data.eval="], &["evaluation rows are few", "data.eval_fraction"]);
    let parts = ["training.learning_rate = 1", "nothing pretrained is left", "1e-2"];
    doubted(&Scratch::new(), &["training.learning_rate=1"], &parts[..2]);
}
