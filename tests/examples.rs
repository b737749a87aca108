//! The examples, each run on the random BERT: included here, so that none is linked alone.

use crate::common::golden_dir;

#[allow(dead_code)]
#[path = "../examples/many_tasks.rs"]
mod many_tasks;
#[allow(dead_code)]
#[path = "../examples/own_data.rs"]
mod own_data;
#[allow(dead_code)]
#[path = "../examples/predict.rs"]
mod predict;
#[allow(dead_code)]
#[path = "../examples/train.rs"]
mod train;

#[test]
fn the_examples_train_and_predict() {
    let folder = tempfile::tempdir().unwrap();
    let base = golden_dir().join("tiny-bert");
    let base = base.to_str().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let rows = "good,yes\nbad,no\nfine,yes\nawful,no\n".repeat(8);
    std::fs::write(path("texts.csv"), format!("text,label\n{rows}")).unwrap();

    let summary = train::train(base, &path("texts.csv"), &path("tasks/mood")).unwrap();
    assert!(summary.steps > 0 && summary.best.contains_key("accuracy"));
    train::train(base, &path("texts.csv"), &path("tasks/other")).unwrap();

    let texts = ["good".to_owned(), "bad".to_owned()];
    let alone = predict::predict(&path("tasks/mood"), &texts).unwrap();
    assert!(alone.iter().all(|one| ["yes", "no"].contains(&one.label.as_deref().unwrap())));

    let rows = [("mood", "good"), ("other", "fine"), ("mood", "bad")];
    let mixed = many_tasks::many_tasks(base, &path("tasks"), &rows).unwrap();
    for (mixed, alone) in [(&mixed[0], &alone[0]), (&mixed[2], &alone[1])] {
        assert_eq!(mixed.label, alone.label);
        assert!((mixed.score.unwrap() - alone.score.unwrap()).abs() < 1e-5);
    }

    let letters: Vec<_> = own_data::LETTERS.iter().cycle().take(40).collect();
    let letters = own_data::own_data(base, &path("letters"), &letters).unwrap();
    let names: Vec<&str> = letters[0].scores.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["delivery", "quality"]);
}
