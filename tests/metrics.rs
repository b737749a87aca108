//! Metrics against scikit-learn.

use crate::common::golden_dir;
use bitfit::eval::classification;

#[test]
fn metrics_are_scikit_learns() {
    let text = std::fs::read_to_string(golden_dir().join("metrics.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let list = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
        let count = case["num_labels"].as_u64().unwrap() as usize;
        let ours = classification(&list("labels"), &list("predictions"), count);
        for name in ["accuracy", "f1", "matthews"] {
            let expected = case[name].as_f64().unwrap();
            assert!((ours[name] - expected).abs() < 1e-12, "{name}: {} and {expected}", ours[name]);
        }
    }
}
