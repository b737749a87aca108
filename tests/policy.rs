//! When a run logs, evaluates and saves, and the advice for a run that has not learned.

use bitfit::internal::bounds::Count;
use bitfit::internal::config::{DataSize, Interval, Run, RunConfig, TrainingSection};
use bitfit::internal::data::Sampler;
use bitfit::internal::stats::Course;
use bitfit::internal::train::{Actions, Evidence, Policy};

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

/// The length of a run that names none follows from its data.
#[test]
fn the_data_make_the_epochs() {
    let run = Run::in_code(RunConfig::new("base", "train.tsv", "run")).unwrap();
    for (rows, mean_length, epochs, why) in [
        (90, 20.0, 67, "about 400 steps"),
        (900, 20.0, 8, "about 400 steps"),
        (900, 128.0, 5, "640,000 tokens at most"),
        (1_100, 128.0, 5, "640 tokens a row at most"),
        (20_000, 128.0, 3, "3 at least"),
        (10, 5.0, 200, "200 at most"),
    ] {
        let size = DataSize { rows, eval_rows: 10, mean_length };
        let run = run.clone().with_data(size).unwrap();
        assert_eq!(run.training().num_train_epochs, Some(count(epochs)), "{size:?}");
        assert!(run.describe()[0].contains(why), "{:?}", run.describe());
        let tokens = epochs as f64 * rows as f64 * mean_length;
        assert!(rows > 1_000 || tokens <= 640_000.0, "{tokens}");
    }
    // A written number stays.
    let mut config = RunConfig::new("base", "train.tsv", "run");
    config.training.num_train_epochs = Some(count(2));
    let size = DataSize { rows: 90, eval_rows: 10, mean_length: 20.0 };
    let run = Run::in_code(config).unwrap().with_data(size).unwrap();
    assert_eq!(run.describe()[0], "2 epochs");
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

fn course(losses: impl IntoIterator<Item = f64>) -> Course {
    let mut course = Course::default();
    (1..).zip(losses).for_each(|(step, loss)| course.add(step, loss));
    course
}

#[test]
fn a_course_keeps_the_means_of_its_tenths() {
    assert_eq!(course((1..10).map(f64::from)).tenths(), None, "nine steps");
    assert_eq!(course((1..=10).map(f64::from)).tenths(), Some([1.0, 9.0, 10.0]));
    assert_eq!(course((1..=20).map(f64::from)).tenths(), Some([1.5, 17.5, 19.5]));
    // Parts of 32 steps, of which the last is short.
    let [first, before, last] = course((1..=1000).map(f64::from)).tenths().unwrap();
    assert_eq!([first, before, last], [64.5, 832.5, 948.5]);
    // However long the run, it stays small.
    let long = course((1..=100_000).map(f64::from));
    assert!(serde_json::to_string(&long).unwrap().len() < 1000);
    // A loss that was not read, as on a GPU between logged steps, leaves a gap.
    let mut logged = Course::default();
    (10..=400).step_by(10).for_each(|step| logged.add(step, step as f64));
    assert_eq!(logged.tenths(), Some([25.0, 330.0, 380.0]));
    let mut odd = Course::default();
    [f64::NAN, f64::INFINITY].into_iter().for_each(|loss| odd.add(3, loss));
    odd.add(u64::MAX, 1.0);
    odd.add(0, 1.0);
    let text = serde_json::to_string(&odd).unwrap();
    assert_eq!(serde_json::from_str::<Course>(&text).unwrap(), odd);
}

#[test]
fn a_run_that_has_not_learned_gets_advice() {
    let advice = |losses: Course, eval_loss: f64| {
        let more_steps = "training.num_train_epochs (found 3)".into();
        let learning_rate = Some(0.001);
        Evidence { losses: &losses, eval_loss: Some(eval_loss), more_steps, learning_rate }.advice()
    };
    let falling =
        |from: f64, to: f64| course((0..40).map(|i| from + (to - from) * f64::from(i) / 39.0));
    assert_eq!(
        advice(falling(0.7, 0.4), 0.7),
        "try more steps, training.num_train_epochs (found 3): the training loss was still falling at the end (from 0.4423 to 0.4115)"
    );
    assert_eq!(
        advice(falling(0.70, 0.69), 0.7),
        "try another learning rate, training.learning_rate (found 1e-3): the training loss did not move (from 0.6996 to 0.6904)"
    );
    assert_eq!(
        advice(falling(0.7, 0.1), 0.9),
        "try more training rows: those of the run are learned (loss 0.1231), and others are not (loss 0.9000)"
    );
    // The loss fell, and then stayed.
    let either = "try more steps, training.num_train_epochs (found 3), or another learning rate, training.learning_rate (found 1e-3)";
    assert_eq!(advice(course((0..40).map(|i| if i < 20 { 0.7 } else { 0.5 })), 0.7), either);
    assert_eq!(advice(falling(0.5, 0.7), 0.7), either, "the loss rose");
    assert!(advice(falling(0.7, 0.7), f64::NAN).contains("did not move"));
    assert_eq!(advice(course([0.7; 9]), 0.7), either, "a few steps say nothing");
}
