//! When a run logs, evaluates and saves.

use bitfit::config::{Interval, TrainingSection};
use bitfit::train::{Actions, Policy};

#[test]
fn steps_epochs_and_the_end() {
    let training = TrainingSection {
        per_device_train_batch_size: 10,
        num_train_epochs: 2,
        logging_steps: 3,
        eval_steps: 4,
        save_strategy: Interval::Epoch,
        ..Default::default()
    };
    let policy = Policy::new(&training, 45);
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
    let policy = Policy::new(&training, 1_000_000);
    assert_eq!(policy.total, 7);
    assert!(
        !policy.after(6).evaluate && policy.after(7).evaluate,
        "a run always ends with an evaluation"
    );
}
