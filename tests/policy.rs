//! When a run logs, evaluates and saves.

use bitfit::internal::bounds::Count;
use bitfit::internal::config::{Interval, TrainingSection};
use bitfit::internal::data::Sampler;
use bitfit::internal::train::{Actions, Policy};

fn count(number: u64) -> Count {
    number.try_into().unwrap()
}

/// A sampler of `rows` rows of 10 tokens each.
fn sampler(training: &TrainingSection, rows: usize) -> Sampler {
    Sampler { lengths: vec![10; rows], seed: 1, shuffle: true, step: training.batch_size() }
}

#[test]
fn steps_epochs_and_the_end() {
    let training = TrainingSection {
        per_device_train_batch_size: count(10),
        num_train_epochs: Some(count(2)),
        logging_steps: count(3),
        eval_steps: count(4),
        save_strategy: Interval::Epoch,
        ..Default::default()
    };
    let policy = Policy::new(&training, &sampler(&training, 45));
    assert_eq!(policy.total, 10, "45 rows are 5 steps, the last one short");
    assert_eq!(policy.after(1), Actions { log: false, evaluate: false, save: false });
    assert_eq!(policy.after(3), Actions { log: true, evaluate: false, save: false });
    assert_eq!(policy.after(4), Actions { log: false, evaluate: true, save: false });
    assert_eq!(policy.after(5), Actions { log: false, evaluate: false, save: true });
    assert_eq!(policy.after(10), Actions { log: true, evaluate: true, save: true });
    assert_eq!(policy.epoch(5), 1.0);
}

#[test]
fn max_steps_wins() {
    let training =
        TrainingSection { max_steps: 7, eval_strategy: Interval::No, ..Default::default() };
    let policy = Policy::new(&training, &sampler(&training, 1_000_000));
    assert_eq!(policy.total, 7);
    assert!(
        !policy.after(6).evaluate && policy.after(7).evaluate,
        "a run always ends with an evaluation"
    );
}

/// 45 rows of 10 tokens, seven to a step, are seven steps.
#[test]
fn a_budget_of_tokens_makes_the_epochs() {
    let mut training = TrainingSection {
        max_tokens_per_batch: Some(79u64.try_into().unwrap()),
        num_train_epochs: Some(count(2)),
        eval_strategy: Interval::Epoch,
        ..Default::default()
    };
    let policy = Policy::new(&training, &sampler(&training, 45));
    assert_eq!(policy.total, 14);
    assert_eq!((policy.cursor(7), policy.cursor(8)), ((0, 6), (1, 0)));
    assert_eq!((policy.epoch(7), policy.epoch(14)), (1.0, 2.0));
    assert_eq!(policy.epoch(8), 1.0 + 1.0 / 7.0);
    let evaluated: Vec<u64> = (1..=14).filter(|&step| policy.after(step).evaluate).collect();
    assert_eq!(evaluated, [7, 14]);
    training.max_steps = 10;
    let policy = Policy::new(&training, &sampler(&training, 45));
    assert_eq!((policy.total, policy.cursor(10)), (10, (1, 2)));
}
