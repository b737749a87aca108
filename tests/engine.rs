//! Many callers at once: the queue, alone, and the engine over a tiny base.

use crate::common::Scratch;
use crate::made;
use crate::tasks::write_tasks;
use bitfit::internal::engine::{Queue, Taken};
use bitfit::{Engine, Error, Prediction, Tasks};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(3600);

/// A request of rows of `tokens` tokens each, called `name`0, `name`1 and so on.
fn request(name: &str, tokens: &[usize]) -> Vec<(usize, String)> {
    tokens.iter().enumerate().map(|(i, &tokens)| (tokens, format!("{name}{i}"))).collect()
}

fn batch(queue: &mut Queue<String>, budget: usize) -> String {
    queue.take(Instant::now(), budget, |_| true).batch.join(" ")
}

#[test]
fn requests_take_turns() {
    let mut queue = Queue::new(100, LONG);
    let later = Instant::now() + LONG;
    queue.admit(request("a", &[100; 8]), later).unwrap();
    queue.admit(request("b", &[50]), later).unwrap();
    queue.admit(request("c", &[300, 10]), later).unwrap();
    // A turn is 256 tokens, or one longer row. `c` begins no turn in the first batch, and is first
    // in the second.
    assert_eq!(batch(&mut queue, 512), "a0 a1 b0");
    assert_eq!(batch(&mut queue, 512), "c0 a2 a3");
    assert_eq!(batch(&mut queue, 512), "c1 a4 a5 a6 a7");
    assert!(queue.is_empty() && batch(&mut queue, 512).is_empty());
    // A row that is longer than a batch is a batch.
    queue.admit(request("d", &[5, 1000, 5]), later).unwrap();
    let batches: Vec<String> = (0..3).map(|_| batch(&mut queue, 512)).collect();
    assert_eq!(batches, ["d0", "d1", "d2"]);
}

/// Every row leaves once, in the order of its request, in batches that are not too large.
#[test]
fn every_row_leaves_once() {
    let mut random = made::random(3);
    for _ in 0..200 {
        let mut queue = Queue::new(1000, LONG);
        let (mut left, mut seen) = (BTreeMap::new(), BTreeMap::<usize, usize>::new());
        let mut calls = 0;
        while calls < 8 || !queue.is_empty() {
            if calls < 8 && made::below(&mut random, 2) == 0 {
                let rows: Vec<(usize, (usize, usize, usize))> = (0..made::below(&mut random, 30))
                    .map(|row| (1 + made::below(&mut random, 600), row))
                    .map(|(tokens, row)| (tokens, (calls, row, tokens)))
                    .collect();
                left.insert(calls, rows.len());
                queue.admit(rows, Instant::now() + LONG).unwrap();
                calls += 1;
            }
            let budget = 1 + made::below(&mut random, 1000);
            let Taken { batch, tokens, expired } = queue.take(Instant::now(), budget, |_| true);
            assert!(expired.is_empty());
            assert_eq!(tokens, batch.iter().map(|(_, _, tokens)| tokens).sum::<usize>());
            assert!(tokens <= budget || batch.len() == 1, "{tokens} of {budget}");
            for (call, row, _) in batch {
                let next = seen.entry(call).or_default();
                assert_eq!(row, *next, "in the order of the request");
                *next += 1;
            }
        }
        left.retain(|_, rows| *rows > 0);
        assert_eq!(left, seen);
    }
}

#[test]
fn what_would_wait_too_long_is_refused() {
    let busy = |result: bitfit::Result<()>| matches!(result, Err(Error::Busy { .. }));
    let now = Instant::now();
    let mut queue = Queue::new(10, Duration::from_secs(1));
    // A request that is alone always fits; beside it nothing does.
    queue.admit(request("a", &[10; 20]), now + LONG).unwrap();
    assert!(busy(queue.admit(request("b", &[1]), now + LONG)));
    assert_eq!(queue.rows(), 20, "refused whole");
    batch(&mut queue, 195);
    queue.admit(request("b", &[1]), now + LONG).unwrap();
    // By time: 100 tokens a second, and 111 wait.
    queue.computed(100, Duration::from_secs(1));
    queue.admit(request("c", &[100]), now + LONG).unwrap();
    assert!(busy(queue.admit(request("d", &[1]), now + LONG)));
    // Faster, the same wait is short.
    (0..50).for_each(|_| queue.computed(1000, Duration::from_secs(1)));
    queue.admit(request("d", &[1]), now + LONG).unwrap();
}

/// A request of thousands of rows delays a small one by a turn, and is no reason to refuse it.
#[test]
fn a_large_request_leaves_room_for_small_ones() {
    let later = Instant::now() + LONG;
    let mut queue = Queue::new(10_000, Duration::from_secs(1));
    queue.computed(1000, Duration::from_secs(1));
    queue.admit(request("bulk", &[100; 1000]), later).unwrap();
    queue.admit(request("small", &[100]), later).unwrap();
    let busy = queue.admit(request("other", &[100; 1000]), later).unwrap_err();
    assert!(matches!(busy, Error::Busy { rows: 1001, seconds } if seconds > 100.0), "{busy}");
    assert_eq!(batch(&mut queue, 512), "bulk0 bulk1 small0 bulk2 bulk3");
}

#[test]
fn late_and_unwanted_rows_are_left_out() {
    let now = Instant::now();
    let mut queue = Queue::new(100, LONG);
    queue.admit(request("late", &[9, 9]), now).unwrap();
    queue.admit(request("gone", &[9, 9]), now + LONG).unwrap();
    queue.admit(request("here", &[9]), now + LONG).unwrap();
    let taken = queue.take(now + Duration::from_secs(1), 20, |row| !row.starts_with("gone"));
    assert_eq!(taken.expired, ["late0", "late1"]);
    assert_eq!((taken.batch, taken.tokens), (vec!["here0".to_owned()], 9));
    assert!(queue.is_empty());
    queue.admit(request("a", &[9]), now).unwrap();
    assert_eq!(queue.drain(), ["a0"]);
    assert!(queue.is_empty());
}

/// An engine over a tiny base with `count` made tasks, and the tasks alone.
fn engine(scratch: &Scratch, count: u64) -> (Engine, Tasks) {
    write_tasks(&scratch.path("base"), &scratch.path("tasks"), count);
    let builder = Tasks::builder(scratch.path("base")).device(bitfit::Device::Cpu);
    let mut tasks = builder.clone().open().unwrap();
    assert!(tasks.load_dir(scratch.path("tasks")).unwrap().is_empty());
    let engine = Engine::builder(builder).max_batch_tokens(64).start().unwrap();
    assert!(engine.load_dir(scratch.path("tasks")).unwrap().is_empty());
    (engine, tasks)
}

/// The names of the tasks that take single texts.
fn single(tasks: &Tasks) -> Vec<String> {
    let is_single = |name: &&str| tasks.get(name).unwrap().pairs != Some(true);
    tasks.names().filter(is_single).map(str::to_owned).collect()
}

fn close(a: &Prediction, b: &Prediction) -> bool {
    let scores = |p: &Prediction| -> Vec<f32> {
        p.scores.iter().map(|(_, score)| *score).chain(p.score).collect()
    };
    let (a, b) = (scores(a), scores(b));
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0))
}

#[test]
fn threads_get_the_answers_of_their_tasks() {
    let scratch = Scratch::new();
    let (engine, tasks) = engine(&scratch, 12);
    let names = single(&tasks);
    let texts = ["the film was very good", "awful", "a plot and an acting that i hated"];
    let rows = |seed: u64| -> Vec<(String, &str)> {
        let mut random = made::random(seed);
        let count = 1 + made::below(&mut random, 20);
        let pick = |_| {
            let name = names[made::below(&mut random, names.len())].clone();
            (name, texts[made::below(&mut random, texts.len())])
        };
        (0..count).map(pick).collect()
    };
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|thread| {
                let (engine, rows) = (engine.clone(), &rows);
                let predict = move |seed| (seed, engine.predict(rows(seed)).unwrap());
                scope.spawn(move || (0..6).map(|i| predict(thread * 6 + i)).collect::<Vec<_>>())
            })
            .collect();
        for thread in asked {
            for (seed, found) in thread.join().unwrap() {
                let expected = tasks.predict(rows(seed)).unwrap();
                assert_eq!(found.len(), expected.len());
                assert!(found.iter().zip(&expected).all(|(a, b)| close(a, b)), "{seed}");
            }
        }
    });
    assert!(engine.predict(Vec::<(&str, &str)>::new()).unwrap().is_empty());
    let error = engine.predict([("t99", "a")]).unwrap_err().to_string();
    assert!(error.contains("no such task"), "{error}");
    assert!(engine.remove(&names[0]) && !engine.remove(&names[0]));
    engine.predict([(&names[0], "a")]).unwrap_err();
}

/// While a task is replaced again and again, each answer is that of one of the versions.
#[test]
fn a_task_is_replaced_under_load() {
    let scratch = Scratch::new();
    let (engine, tasks) = engine(&scratch, 12);
    let names = single(&tasks);
    // Two tasks, which become versions of one.
    let two = [names[0].clone(), names[1].clone()];
    let file = |name: &str| scratch.path(&format!("tasks/{name}.safetensors"));
    let text = "the film was very good";
    let versions = two.each_ref().map(|name| tasks.predict([(name, text)]).unwrap().remove(0));
    engine.load("own", file(&two[0])).unwrap();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..60 {
                        for found in engine.predict([("own", text), (&two[0], text)]).unwrap() {
                            assert!(versions.iter().any(|version| close(&found, version)));
                        }
                    }
                })
            })
            .collect();
        for i in 0..60 {
            engine.load("own", file(&two[(i + 1) % 2])).unwrap();
            // What is asked from now on is answered by the new version.
            let found = engine.predict([("own", text)]).unwrap().remove(0);
            assert!(close(&found, &versions[(i + 1) % 2]));
        }
        asking.into_iter().for_each(|thread| thread.join().unwrap());
    });
    // A file that is no task changes nothing.
    let bad = scratch.write("bad.safetensors", "nothing");
    engine.load("own", &bad).unwrap_err();
    engine.predict([("own", text)]).unwrap();
}

/// A base that is written to ends the engine, with an error that names the file, and no answer.
#[test]
fn a_base_that_changes_ends_the_engine() {
    let scratch = Scratch::new();
    let (engine, tasks) = engine(&scratch, 3);
    let names = single(&tasks);
    let weights = scratch.path("base/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    for part in ["model.safetensors: written to while it was in use", "the engine has ended"] {
        let error = engine.predict([(&names[0], "a")]).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn an_engine_refuses_and_gives_up_in_time() {
    let scratch = Scratch::new();
    write_tasks(&scratch.path("base"), &scratch.path("tasks"), 3);
    let builder = Tasks::builder(scratch.path("base")).device(bitfit::Device::Cpu);
    let late = Engine::builder(builder.clone()).timeout(Duration::ZERO).start().unwrap();
    late.load_dir(scratch.path("tasks")).unwrap();
    let name = late.names().remove(0);
    let input = |name: &str| match name {
        // A pair, where the task wants one.
        _ if late.predict([(name, "a")]).is_err_and(|e| e.to_string().contains("pair")) => {
            bitfit::Input::from(("a", "b"))
        }
        _ => bitfit::Input::from("a"),
    };
    let error = late.predict([(&name, input(&name))]).unwrap_err().to_string();
    assert!(error.contains("no answer within"), "{error}");
    // A base that cannot be opened.
    let error = Engine::builder(Tasks::builder(scratch.path("nowhere"))).start().err().unwrap();
    assert!(error.to_string().contains("nowhere"), "{error}");
}
