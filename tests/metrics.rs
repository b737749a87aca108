//! Metrics, reports and the constant answer against scikit-learn and SciPy.

use crate::common::{self, golden_dir};
use bitfit::internal::data::Target;
use bitfit::internal::eval::{
    ClassificationReport, Constant, ConstantAnswer, ConstantTest, ConstantVerdict, MATRIX,
    MultiLabel, classification, regression,
};
use bitfit::internal::models::TaskType;
use bitfit::internal::predict::Mistake;
use bitfit::internal::stats::Discordant;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn cases(kind: &str, at_least: usize) -> Vec<Value> {
    cases_of("metrics.json", kind, at_least)
}

fn cases_of(file: &str, kind: &str, at_least: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(golden_dir().join(file)).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let cases = cases[kind].as_array().unwrap().clone();
    assert!(cases.len() >= at_least, "{} cases of {kind}", cases.len());
    cases
}

fn list<T: DeserializeOwned>(case: &Value, key: &str) -> Vec<T> {
    serde_json::from_value(case[key].clone()).unwrap()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

/// The places of the ones.
fn ones(row: &[u8]) -> Vec<u32> {
    row.iter().zip(0..).filter(|(value, _)| **value == 1).map(|(_, i)| i).collect()
}

/// Rows of 0 and 1 for each label, counted.
fn counted(labels: &[Vec<u8>], predictions: &[Vec<u8>], count: usize) -> MultiLabel {
    let mut counts = MultiLabel::new(count);
    labels.iter().zip(predictions).for_each(|(a, b)| counts.add(&ones(a), &ones(b)));
    counts
}

/// The same keys, lists and strings, and the same numbers up to rounding.
fn assert_close(ours: &Value, expected: &Value, place: &str) {
    match (ours, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: [Vec<&String>; 2] = [a.keys().collect(), b.keys().collect()];
            keys.iter_mut().for_each(|keys| keys.sort());
            assert_eq!(keys[0], keys[1], "{place}");
            a.iter()
                .for_each(|(key, value)| assert_close(value, &b[key], &format!("{place}.{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}");
            a.iter()
                .zip(b)
                .enumerate()
                .for_each(|(i, (a, b))| assert_close(a, b, &format!("{place}[{i}]")));
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{place}: {a} and {b}");
        }
        _ => assert_eq!(ours, expected, "{place}"),
    }
}

#[test]
fn classification_is_scikit_learns() {
    for (i, case) in cases("classification", 9).iter().enumerate() {
        let (labels, predictions) = (list(case, "labels"), list(case, "predictions"));
        let count = case["num_labels"].as_u64().unwrap() as usize;
        let metrics = classification(&labels, &predictions, count);
        assert_close(&json!(metrics), &case["metrics"], &format!("metrics {i}"));
        let report = ClassificationReport::classification(&labels, &predictions, &names(count));
        assert_close(&json!(report), &case["report"], &format!("report {i}"));
    }
}

#[test]
fn multi_label_is_scikit_learns() {
    for (i, case) in cases("multi_label", 4).iter().enumerate() {
        let (labels, predictions) =
            (list::<Vec<u8>>(case, "labels"), list::<Vec<u8>>(case, "predictions"));
        let counts = counted(&labels, &predictions, labels[0].len());
        assert_close(&json!(counts.metrics()), &case["metrics"], &format!("metrics {i}"));
        let report = ClassificationReport::multi_label(&counts, &names(labels[0].len()));
        assert_close(&json!(report), &case["report"], &format!("report {i}"));
    }
}

#[test]
fn regression_is_scipys() {
    for (i, case) in cases("regression", 12).iter().enumerate() {
        let metrics = regression(&list(case, "gold"), &list(case, "predicted"));
        assert_close(&json!(metrics), &case["metrics"], &format!("metrics {i}"));
    }
}

#[test]
fn correlation_keeps_its_digits_in_extreme_ranges() {
    let gold = [1.0, 2.0, 3.0, 5.0];
    let expected = regression(&gold, &[2.0, 1.0, 4.0, 4.0]);
    // Powers of two, which change no digit.
    for scale in [2f64.powi(-1000), 2f64.powi(1000)] {
        let ours = regression(&gold, &[2.0, 1.0, 4.0, 4.0].map(|value| value * scale));
        assert_eq!(ours["pearson"], expected["pearson"]);
        assert_eq!(ours["spearman"], expected["spearman"]);
    }
}

#[test]
fn the_table_is_scikit_learns() {
    let names: Vec<String> =
        ["bad", "größer als dreißig Zeichen ist dieser Name", "good"].map(String::from).into();
    let report =
        ClassificationReport::classification(&[0, 0, 1, 2, 2, 2], &[0, 1, 1, 2, 2, 0], &names);
    let expected = "
                                precision    recall        f1   support
                           bad     0.5000    0.5000    0.5000         2
größer als dreißig Zeichen is…     0.5000    1.0000    0.6667         1
                          good     1.0000    0.6667    0.8000         3

                      accuracy                         0.6667         6
                     macro avg     0.6667    0.7222    0.6556         6
                  weighted avg     0.7500    0.6667    0.6778         6

confusion matrix (rows: true label, columns: predicted)
                                      bad größer a…      good
                           bad          1         1         0
größer als dreißig Zeichen is…          0         1         0
                          good          1         0         2";
    assert_eq!(format!("\n{report}"), expected);

    let rows = |rows: [[u8; 2]; 3]| rows.map(Vec::from);
    let (labels, predictions) = ([[1, 0], [1, 1], [0, 0]], [[1, 1], [0, 1], [0, 0]]);
    let counts = counted(&rows(labels), &rows(predictions), 2);
    let report = ClassificationReport::multi_label(&counts, &["a".into(), "b".into()]);
    let expected = "
              precision    recall        f1   support
           a     1.0000    0.5000    0.6667         2
           b     0.5000    1.0000    0.6667         1

   micro avg     0.6667    0.6667    0.6667         3
   macro avg     0.7500    0.7500    0.6667         3
weighted avg     0.8333    0.6667    0.6667         3";
    assert_eq!(format!("\n{report}"), expected);
}

#[test]
fn a_large_confusion_matrix_is_left_to_json() {
    let classes: Vec<usize> = (0..21).collect();
    let report =
        |count| ClassificationReport::classification(&classes, &classes, &names(count)).to_string();
    assert!(report(20).ends_with(" 1") && report(20).contains("rows: true label"));
    for count in [21, MATRIX + 1] {
        let table = report(count);
        assert!(table.ends_with("\n\nconfusion matrix: more than 20 classes; --json prints it"));
        assert!(table.contains("    accuracy  "), "{table}");
    }
}

/// A matrix of all classes would have their square of cells.
#[test]
fn the_confusion_of_many_classes_is_a_list_of_what_is_not_zero() {
    let (labels, predictions) = ([0, 7, 7, MATRIX, 3, 7], [0, 9, 9, 1, 3, 7]);
    let at = ClassificationReport::classification(&labels[..3], &predictions[..3], &names(MATRIX));
    assert_eq!(at.confusion.as_ref().unwrap()[7][9], 2);
    assert_eq!(at.confusion.unwrap().iter().flatten().sum::<u64>(), 3);
    assert_eq!(at.confusion_cells, None);
    let above = ClassificationReport::classification(&labels, &predictions, &names(MATRIX + 1));
    assert_eq!(above.confusion, None);
    assert_eq!(
        json!(above)["confusion_cells"],
        json!([[0, 0, 1], [3, 3, 1], [7, 7, 1], [7, 9, 2], [MATRIX, 1, 1]])
    );
}

#[test]
fn odd_input_is_left_out_and_nothing_panics() {
    for table in [
        ClassificationReport::classification(&[], &[], &[]).to_string(),
        ClassificationReport::classification(&[0, 7], &[1], &names(2)).to_string(),
        ClassificationReport::classification(&[0], &[1], &["a".into(), " ".into()]).to_string(),
        ClassificationReport::multi_label(&MultiLabel::new(0), &[]).to_string(),
    ] {
        assert!(table.lines().all(|line| line == line.trim_end()) && !table.ends_with('\n'));
    }

    assert!(classification(&[], &[], 0).values().all(|&value| value == 0.0));
    assert!(MultiLabel::new(0).metrics().values().all(|&value| value == 0.0));
    assert!(regression(&[], &[1.0]).values().all(|&value| value == 0.0));

    // The rows left are (0, 0) and (1, 0).
    let (labels, predictions) = ([0, 1, 9, 1, 1], [0, 0, 1, usize::MAX]);
    assert_eq!(classification(&labels, &predictions, 2), classification(&[0, 1], &[0, 0], 2));
    assert_eq!(
        ClassificationReport::classification(&labels, &predictions, &names(2)),
        ClassificationReport::classification(&[0, 1], &[0, 0], &names(2)),
    );

    // The third label of the second row has no name.
    let (labels, predictions) = ([vec![1], vec![1, 0, 1]], [vec![1], vec![1; 2]]);
    let counts = counted(&labels, &predictions, 2);
    assert_eq!(counts.metrics()["accuracy"], 0.5);
    let report = ClassificationReport::multi_label(&counts, &names(2));
    assert_eq!((report.classes.len(), report.macro_avg.support), (2, 2));

    let gold = [1.0, 2.0, 3.0];
    let odd = [[f64::NAN; 3], [f64::NAN, 1.0, 2.0], [1.0, -f64::NAN, 2.0]];
    for predicted in odd {
        assert!(regression(&gold, &predicted).values().all(|value| value.is_nan()));
    }
    let infinite = regression(&gold, &[f64::NEG_INFINITY, f64::MAX, f64::INFINITY]);
    assert_eq!(infinite["spearman"], 1.0);
    // Zeros are equal whatever their sign.
    assert_eq!(regression(&gold, &[0.0, -0.0, 1.0]), regression(&gold, &[0.0, 0.0, 1.0]));
    assert_eq!(regression(&gold, &[4.0]), regression(&[1.0], &[4.0]));
}

#[test]
fn a_mistake_says_what_is_expected_and_how_sure_the_task_is() {
    let mistake = |task_type, labels: &[&str], target: Target, logits: &[f32]| {
        let task = common::task(task_type, labels);
        let found = Mistake::of(&task, 0, &target, logits);
        found.map(|found| serde_json::to_value(&found).unwrap())
    };
    let close = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-5;
    let class = |class| Target::Class(class);
    let of_class =
        |target, logits: &[f32]| mistake(TaskType::Classification, &["no", "yes"], target, logits);
    assert_eq!(of_class(class(1), &[0.0, 1.0]), None);
    let found = of_class(class(0), &[0.0, 1.0]).unwrap();
    assert_eq!((&found["label"], &found["predicted"]), (&json!("no"), &json!("yes")));
    assert!(close(&found["score"], 1.0 / (1.0 + (-1.0_f64).exp())) && found.get("error").is_none());
    let of_labels = |present: &[u32], logits: &[f32]| {
        let target = Target::Labels { present: present.to_vec(), num_labels: 3 };
        mistake(TaskType::MultiLabel, &["a", "b", "c"], target, logits)
    };
    // A logit of 0 is a probability of a half, which gives the label.
    assert_eq!(of_labels(&[0, 2], &[0.0, -0.1, 3.0]), None);
    let found = of_labels(&[0], &[-2.0, 0.5, -9.0]).unwrap();
    assert_eq!((&found["label"], &found["predicted"]), (&json!(["a"]), &json!(["b"])));
    assert!(close(&found["score"], 1.0 / (1.0 + (-2.0_f64).exp())));
    let found = mistake(TaskType::Regression, &[], Target::Number(2.0), &[0.5]).unwrap();
    assert_eq!(found, json!({"label": 2.0, "predicted": 0.5, "error": 1.5}));
}

/// The p-value up to the digits that statrs gives, and the verdict.
#[track_caller]
fn tested_like(found: &Constant, case: &Value) {
    let (ours, expected) = (found.p.unwrap(), case["p"].as_f64().unwrap());
    assert!((ours - expected).abs() <= 1e-9 * expected, "{ours} and {expected}");
    assert_eq!(json!(found.verdict), case["verdict"]);
}

#[test]
fn the_constant_answer_to_classes_is_tested_as_by_scipy() {
    let mut verdicts = vec![];
    for case in cases_of("constant.json", "classification", 9) {
        let (labels, predictions): (Vec<usize>, Vec<usize>) =
            (list(&case, "labels"), list(&case, "predictions"));
        let (answer, count) = (case["answer"].as_u64().unwrap() as usize, &case["num_labels"]);
        let count = count.as_u64().unwrap() as usize;
        let found = Constant::of_classes(&labels, &predictions, &names(count));
        assert_eq!(found.answer, ConstantAnswer::Label(names(count)[answer].clone()));
        assert_eq!(found.test, ConstantTest::Mcnemar);
        let always = vec![answer; labels.len()];
        assert_eq!(found.metrics, classification(&labels, &always, count));
        tested_like(&found, &case);
        verdicts.push(found.verdict);
    }
    let all = [ConstantVerdict::Better, ConstantVerdict::NoBetter, ConstantVerdict::Worse];
    assert!(all.iter().all(|verdict| verdicts.contains(verdict)));
    for case in cases_of("constant.json", "discordant", 7) {
        let (first_alone, second_alone) = (case[0].as_u64().unwrap(), case[1].as_u64().unwrap());
        let (p, expected) =
            (Discordant { first_alone, second_alone }.p(), case[2].as_f64().unwrap());
        assert!((p - expected).abs() <= 1e-9 * expected, "{p} and {expected}");
    }
}

#[test]
fn the_constant_answer_to_labels_is_tested_as_by_scipy() {
    for case in cases_of("constant.json", "multi_label", 4) {
        let (labels, predictions): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
            (list(&case, "labels"), list(&case, "predictions"));
        let answer: Vec<u8> = list(&case, "answer");
        let names = names(answer.len());
        let gold: Vec<Vec<u32>> = labels.iter().map(|row| ones(row)).collect();
        let differ =
            |(a, b): (&Vec<u8>, &Vec<u8>)| a.iter().zip(b).filter(|(a, b)| a != b).count() as u32;
        let wrong: Vec<u32> = labels.iter().zip(&predictions).map(differ).collect();
        let gold: Vec<&[u32]> = gold.iter().map(Vec::as_slice).collect();
        let counts = counted(&labels, &predictions, answer.len());
        let found = Constant::of_labels(&gold, &counts, &wrong, &names);
        let named = ones(&answer).iter().map(|&label| names[label as usize].clone()).collect();
        assert_eq!(found.answer, ConstantAnswer::Labels(named));
        assert_eq!(found.test, ConstantTest::Sign);
        let always = counted(&labels, &vec![answer.clone(); labels.len()], answer.len());
        assert_eq!(found.metrics, always.metrics());
        tested_like(&found, &case);
        assert!(found.learned || found.verdict != ConstantVerdict::Better);
    }
}

#[test]
fn the_constant_answer_to_numbers_is_tested_as_by_scipy() {
    for case in cases_of("constant.json", "regression", 5) {
        let gold: Vec<f64> = list(&case, "gold");
        let found = Constant::of_numbers(&gold, &list::<f64>(&case, "predicted"));
        let ConstantAnswer::Number(mean) = found.answer else { panic!("{found:?}") };
        assert!((mean - case["answer"].as_f64().unwrap()).abs() < 1e-12);
        assert_eq!(found.test, ConstantTest::PairedT);
        // The error of the mean is the variance.
        let variance = gold.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / gold.len() as f64;
        assert!((found.metrics["mse"] - variance).abs() < 1e-12 * variance);
        assert_eq!(found.metrics.keys().collect::<Vec<_>>(), ["mae", "mse"]);
        tested_like(&found, &case);
    }
}

#[test]
fn a_constant_answer_to_odd_rows_has_a_verdict() {
    let verdict = |gold: &[f64], guess: &[f64]| {
        let found = Constant::of_numbers(gold, guess);
        (found.p, found.verdict)
    };
    // All rows differ alike, so no test is possible and none is needed.
    assert_eq!(verdict(&[1.0, -1.0], &[1.0, -1.0]), (None, ConstantVerdict::Better));
    assert_eq!(verdict(&[1.0, -1.0], &[5.0, -5.0]), (None, ConstantVerdict::Worse));
    assert_eq!(verdict(&[2.0, 2.0], &[2.0, 2.0]), (Some(1.0), ConstantVerdict::NoBetter));
    assert_eq!(verdict(&[2.0], &[2.0]), (None, ConstantVerdict::NoBetter));
    assert_eq!(verdict(&[], &[]), (None, ConstantVerdict::NoBetter));
    for found in [
        Constant::of_classes(&[], &[], &[]),
        Constant::of_classes(&[7, 0], &[0, usize::MAX], &names(2)),
        Constant::of_labels(&[], &MultiLabel::new(2), &[], &names(2)),
        Constant::of_labels(&[&[5], &[0, 0]], &MultiLabel::new(0), &[1, 1], &[]),
    ] {
        assert!(found.p.unwrap() > 0.999 && !found.learned, "{found:?}");
        assert_eq!(found.verdict, ConstantVerdict::NoBetter);
    }
}

/// A model that finds rare labels, with wrong ones beside them, has more wrong labels than no label
/// at all.
#[test]
fn a_model_that_finds_rare_labels_has_learned() {
    let gold: Vec<Vec<u32>> =
        (0..200_u32).map(|row| if row % 20 == 0 { vec![0] } else { vec![] }).collect();
    let learned = |guess: &dyn Fn(u32) -> Vec<u32>| {
        let mut counts = MultiLabel::new(2);
        let rows = gold.iter().zip(0..);
        let wrong: Vec<u32> = rows
            .map(|(gold, row)| {
                counts.add(gold, &guess(row));
                let given = guess(row);
                let missing = gold.iter().filter(|label| !given.contains(label)).count();
                let extra = given.iter().filter(|label| !gold.contains(label)).count();
                (missing + extra) as u32
            })
            .collect();
        let gold: Vec<&[u32]> = gold.iter().map(Vec::as_slice).collect();
        let found = Constant::of_labels(&gold, &counts, &wrong, &names(2));
        assert_eq!(found.verdict, ConstantVerdict::Worse);
        found.learned
    };
    // Each tenth row beside those that are right.
    assert!(learned(&|row| if row % 20 == 0 || row % 10 == 5 || row % 8 == 3 {
        vec![0]
    } else {
        vec![]
    }));
    assert!(!learned(&|row| if row % 7 == 3 { vec![0] } else { vec![] }));
    assert!(!learned(&|_| vec![0]), "a label of every row tells no rows apart");
}

/// A model that finds a rare class has no more rows right than the largest class has.
#[test]
fn a_model_that_finds_a_rare_class_has_learned() {
    let gold: Vec<usize> = (0..200).map(|row| usize::from(row % 20 == 0)).collect();
    // All ten rows of the rare class are found, among ten others.
    let found: Vec<usize> = (0..200).map(|row| usize::from(row % 10 == 0)).collect();
    let by_chance: Vec<usize> = (0..200).map(|row| usize::from(row % 10 == 1)).collect();
    let of = |guess: &[usize]| Constant::of_classes(&gold, guess, &names(2));
    let (found, by_chance) = (of(&found), of(&by_chance));
    assert_eq!((found.verdict, found.learned), (ConstantVerdict::NoBetter, true));
    assert_eq!((by_chance.verdict, by_chance.learned), (ConstantVerdict::Worse, false));
}
