//! Methods side by side: the grid, the statistics, runs that are skipped, resumed and passed over,
//! the report.

use crate::common::{Scratch, golden_dir, refused, root, stderr, stdout, succeeded, tiny_base};
use bitfit::internal::compare::{CompareOptions, Grid, left, render};
use bitfit::internal::config::RunConfig;
use bitfit::internal::freeze::{FreezePlan, Switches};
use bitfit::internal::stats::{Discordant, Spread, holm, paired_t};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const HEAD: &str = "[compare]\noutput_dir = \"out\"\nbase = \"config.toml\"\nseeds = [1, 2]\n";

/// Two arms, of which the first has two rates, chosen by the first seed: 5 runs.
const GRID: &str = "tune = true\ntitle = \"a_b & <c>\"\n[training]\nnum_train_epochs = 1\nsave_steps = 2\neval_steps = 4\n\
                    [[arm]]\nname = \"BitFit\"\nlearning_rates = [1e-3, 1e-2]\n\
                    [[arm]]\nname = \"No <LayerNorm>\"\nset = { \"bitfit.train_layer_norm_bias\" = false }\n";

fn grid(more: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("grid.toml", format!("{HEAD}{more}"));
    scratch
}

fn compare(scratch: &Scratch, more: &[&str]) -> std::process::Output {
    let config = scratch.path("grid.toml");
    let mut args = vec!["compare", "--config", config.to_str().unwrap()];
    args.extend(more);
    scratch.bitfit(&args)
}

fn report(scratch: &Scratch, dir: &str) -> Value {
    let text = std::fs::read_to_string(scratch.path(&format!("{dir}/report.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The report without what times and memory decide.
fn timeless(value: Value) -> Value {
    match value {
        Value::Object(map) if map.get("cost") == Some(&Value::Bool(true)) => Value::Null,
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| key != "cost")
            .map(|(key, value)| (key, timeless(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(timeless).collect(),
        other => other,
    }
}

/// Lines after the head of a grid, and what the error about them says.
const BAD_GRIDS: &[(&str, &[&str])] = &[
    ("", &["grid.toml", "arm", "found none"]),
    ("sedes = [1]\n", &["grid.toml", "line 5", "did you mean `seeds`?"]),
    ("tune = 1\n[[arm]]\nname = \"a\"\n", &["grid.toml", "tune", "line 5"]),
    ("reference = \"b\"\n[[arm]]\nname = \"a\"\n", &["compare.reference", "\"b\"", "\"a\""]),
    ("[[arm]]\nname = \"a b\"\n[[arm]]\nname = \"A-B\"\n", &["arm.name", "A-B", "differ"]),
    ("[[arm]]\nname = \"--\"\n", &["arm.name", "letters or digits"]),
    ("[[arm]]\nname = \"a\"\nlearning_rates = [1e-3, 0.001]\n", &["learning_rates", "different"]),
    ("[[arm]]\nname = \"a\"\nlearning_rates = [-1.0]\n", &["arm \"a\"", "positive"]),
    (
        "[[arm]]\nname = \"a\"\nset = { \"bitfit.train_atention_bias\" = false }\n",
        &[
            "grid.toml",
            "arm \"a\"",
            "bitfit.train_atention_bias",
            "did you mean `train_attention_bias`?",
        ],
    ),
    (
        "[[arm]]\nname = \"a\"\nset = { training = { weight_decay = -1.0 } }\n",
        &["grid.toml", "arm \"a\"", "training.weight_decay", "found -1"],
    ),
    (
        "[[arm]]\nname = \"a\"\nset = { \"training.seed\" = 1 }\n",
        &["arm \"a\"", "training.seed", "compare.seeds"],
    ),
    (
        "[[arm]]\nname = \"a\"\nset = { \"training.learning_rate\" = 1.0 }\nlearning_rates = [1.0]\n",
        &["arm \"a\"", "learning_rates"],
    ),
    (
        "[training]\nlearning_rate = 0.5\n[[arm]]\nname = \"a\"\nlearning_rates = [1.0]\n",
        &["grid.toml", "training.learning_rate", "every arm"],
    ),
    (
        "[[task]]\nname = \"t\"\nset = { training = { learning_rate = 0.5 } }\n[[arm]]\nname = \"a\"\nlearning_rates = [1.0]\n",
        &["task \"t\"", "training.learning_rate", "\"a\""],
    ),
    (
        "[[task]]\nname = \"t\"\nset = { \"data.nothing\" = 1 }\n[[arm]]\nname = \"a\"\n",
        &["task \"t\"", "data.nothing"],
    ),
    (
        "[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nset = { \"training.metric_for_best_model\" = \"f1\" }\n",
        &["metric_for_best_model", "one metric"],
    ),
    (
        "[[arm]]\nname = \"a\"\nset = { \"method.name\" = \"probe\" }\nlearning_rates = [1.0]\n",
        &["arm \"a\"", "training.learning_rate", "takes no steps"],
    ),
    (
        "[[arm]]\nname = \"a\"\nset = { \"method.name\" = \"probe\", \"training.eval_steps\" = 5 }\n",
        &["arm \"a\"", "training.eval_steps", "takes no steps"],
    ),
];

#[test]
fn what_is_wrong_with_a_grid_is_said_with_file_and_key() {
    for (more, parts) in BAD_GRIDS {
        refused(&compare(&grid(more), &["--dry-run"]), 2, parts);
    }
    let scratch = grid("[[arm]]\nname = \"a\"\n");
    for (set, parts) in [
        ("training.output_dir=x", ["--set training.output_dir=x", "compare.output_dir"]),
        ("compare.sedes=[1]", ["--set compare.sedes=[1]", "did you mean `seeds`?"]),
        ("compare.seeds=[]", ["compare.seeds", "one or more"]),
        ("training.weight_decay=-1", ["--set training.weight_decay=-1", "found -1"]),
    ] {
        refused(&compare(&scratch, &["--set", set]), 2, &parts);
    }
    scratch.write("grid.toml", "[compare]\noutput_dir = \"out\"\nseeds = [1, 1]\n");
    refused(&compare(&scratch, &[]), 2, &["compare.seeds", "[1, 1]", "different"]);
    assert!(!scratch.path("out").exists(), "nothing is written");
}

#[test]
fn the_keys_of_a_run_come_from_base_grid_task_arm_and_rate() {
    let scratch = grid(
        "learning_rates = [0.5]\n[training]\nweight_decay = 0.1\nlogging_steps = 3\n\
         [[task]]\nname = \"One\"\nset = { training = { logging_steps = 5 }, data = { train = \"moved/train.tsv\" } }\n\
         [[arm]]\nname = \"a\"\nset = { \"training.logging_steps\" = 7 }\n[[arm]]\nname = \"b\"\nlearning_rates = []\n",
    );
    let read = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Grid::read(&scratch.path("grid.toml"), &sets).unwrap()
    };
    let of = read(&["data.max_length=16", "compare.seeds=[9, 4]"]);
    let cells = of.cells(0, 0).unwrap();
    let run = &cells[1].run;
    let (config, training) = (run.written(), run.training());
    assert_eq!((cells.len(), of.total()), (2, 4));
    assert_eq!(training.weight_decay.get(), 0.1);
    assert_eq!(training.logging_steps.get(), 7);
    assert_eq!(config.data.max_length.get(), 16);
    assert_eq!(config.data.train, scratch.path("moved/train.tsv"), "by the grid's directory");
    assert_eq!(config.data.eval, Some(scratch.path("eval.tsv")), "by the base's");
    assert_eq!((run.learning_rate(), training.seed), (Some(0.5), 4));
    assert_eq!(config.training.output_dir, scratch.path("out/runs/one/a/lr-5e-1-seed-4"));
    let cells = of.cells(0, 1).unwrap();
    let plain = &cells[0].run.written().training;
    assert_eq!((plain.learning_rate.unwrap().get(), plain.logging_steps.get()), (1e-2, 5));
}

#[test]
fn a_probe_has_no_learning_rate_and_the_keys_of_steps_are_for_the_others() {
    let scratch = grid(
        "learning_rates = [1e-3, 1e-2]\n[training]\nnum_train_epochs = 1\nwarmup_steps = 2\n\
         [[arm]]\nname = \"BitFit\"\n[[arm]]\nname = \"Probe\"\nset = { \"method.name\" = \"probe\", \"method.c\" = 10.0 }\n",
    );
    let sets = ["--set", "training.weight_decay=0.1"];
    let shown = compare(&scratch, &[&sets[..], &["--dry-run", "--json"]].concat());
    succeeded(&shown);
    let shown: Value = serde_json::from_str(&stdout(&shown)).unwrap();
    let probe = &shown["arms"][1];
    assert_eq!((&probe["steps"], &probe["runs"]), (&1.into(), &2.into()), "{shown}");
    assert_eq!(probe["learning_rates"].as_array().unwrap().len(), 0);
    succeeded(&compare(&scratch, &sets));
    let found = report(&scratch, "out");
    let arms = &found["tasks"][0]["arms"];
    assert_eq!(
        (&arms[0]["learning_rate"].is_f64(), &arms[0]["rates"][1].is_object()),
        (&true, &true)
    );
    assert_eq!((&arms[1]["method"], &arms[1]["learning_rate"]), (&"probe".into(), &Value::Null));
    assert_eq!(arms[1]["by_seed"].as_array().unwrap().len(), 2);
    assert!(arms[1]["quality"]["mean"].as_f64().unwrap() > 0.7, "{arms}");
    assert!(scratch.path("out/runs/grid/probe/seed-2/delta.safetensors").exists());
    let page = std::fs::read_to_string(scratch.path("out/report.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| Probe")).collect();
    assert!(rows.len() > 2 && rows.iter().any(|row| row.contains("| – | 2 |")), "{page}");
    let json = scratch.path("out/report.json");
    let again = ["compare", "--render", json.to_str().unwrap(), "--output", "again"];
    succeeded(&scratch.bitfit(&again));
    let rendered = std::fs::read_to_string(scratch.path("again/report.md")).unwrap();
    assert_eq!(rendered, page);
}

#[test]
fn the_statistics_are_scipys() {
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * b.abs().max(1.0), "{a} {b}");
    // scipy.stats.ttest_rel([0.871, 0.868, 0.876, 0.88], [0.846, 0.843, 0.848, 0.851])
    let pairs = [(0.871, 0.846), (0.868, 0.843), (0.876, 0.848), (0.88, 0.851)];
    let test = paired_t(&pairs).unwrap();
    close(test.t.unwrap(), 25.951_311_878_876_33);
    close(test.p.unwrap(), 0.000_125_509_372_665_608_82);
    // scipy.stats.ttest_rel([0.87, 0.88, 0.86], [0.86, 0.885, 0.85])
    let test = paired_t(&[(0.87, 0.86), (0.88, 0.885), (0.86, 0.85)]).unwrap();
    close(test.t.unwrap(), 1.0);
    close(test.p.unwrap(), 0.422_649_730_810_374_2);
    assert!(paired_t(&[(0.9, 0.8)]).is_none(), "one pair tells nothing");
    let equal = paired_t(&[(0.5, 0.5), (0.7, 0.7)]).unwrap();
    assert_eq!((equal.t, equal.p), (None, Some(1.0)));
    let apart = paired_t(&[(0.6, 0.5), (0.8, 0.7)]).unwrap();
    assert_eq!((apart.t, apart.p), (None, None), "no spread to measure a difference by");
    // scipy.stats.binomtest(first_alone, first_alone + second_alone, 0.5)
    for (first_alone, second_alone, p) in [
        (3, 12, 0.035_156_25),
        (120, 80, 0.005_685_155_996_750_306),
        (7, 7, 1.0),
        (0, 6, 0.031_25),
        (0, 0, 1.0),
    ] {
        close(Discordant { first_alone, second_alone }.p(), p);
    }
    let rows = Discordant::of(&[true, true, false, false], &[true, false, true, true]).unwrap();
    assert_eq!((rows.first_alone, rows.second_alone), (1, 2));
    assert!(Discordant::of(&[true], &[]).is_none());
    // By hand: 0.01 x 3, then 0.02 x 2, and 0.04 x 1 not below what comes before it.
    for (found, expected) in holm(&[0.04, 0.01, 0.02]).into_iter().zip([0.04, 0.03, 0.04]) {
        close(found, expected);
    }
    let spread = Spread::of(&[1.0, 2.0, 4.0]).unwrap();
    close(spread.mean, 7.0 / 3.0);
    close(spread.sd.unwrap(), 1.527_525_231_651_946_7);
    assert_eq!(Spread::of(&[3.0]).unwrap().sd, None);
}

#[test]
fn the_time_left_is_that_of_the_work_left() {
    assert_eq!(left(10.0, 0.0, 5.0), None);
    assert_eq!(left(10.0, 1.0, 5.0).unwrap(), "50 s");
    assert_eq!(left(600.0, 2.5, 10.0).unwrap(), "40 min");
    assert_eq!(left(3600.0, 2.0, 10.0).unwrap(), "5.0 h");
}

#[test]
fn a_comparison_reports_what_its_runs_measured() {
    let scratch = grid(GRID);
    let output = compare(&scratch, &["--json"]);
    succeeded(&output);
    assert_eq!(stdout(&output).matches("\"event\":\"done\"").count(), 5, "{}", stdout(&output));
    let found = report(&scratch, "out");
    assert_eq!((&found["runs_done"], &found["runs_planned"]), (&5.into(), &5.into()));
    figures_are_those_of_the_runs(&scratch, &found);
    pages_show_the_figures(&scratch, &found);
    again_nothing_is_run(&scratch);
    runs_are_shown_side_by_side(&scratch);
}

fn figures_are_those_of_the_runs(scratch: &Scratch, found: &Value) {
    let arms = found["tasks"][0]["arms"].as_array().unwrap();
    let (bitfit, other) = (&arms[0], &arms[1]);
    // Each figure is that of the runs' own files.
    let (rate, n) = (bitfit["learning_rate"].as_f64().unwrap(), &bitfit["quality"]["n"]);
    assert_eq!(n, 2);
    let mut values = vec![];
    for seed in [1, 2] {
        let dir = scratch.path(&format!("out/runs/grid/bitfit/lr-{rate:e}-seed-{seed}"));
        let read = |name: &str| -> Value {
            serde_json::from_str(&std::fs::read_to_string(dir.join(name)).unwrap()).unwrap()
        };
        let (summary, kept) = (read("summary.json"), read("compare.json"));
        let accuracy = summary["best"]["accuracy"].as_f64().unwrap();
        let right = kept["finished"]["right"].as_str().unwrap();
        let share = right.matches('1').count() as f64 / right.len() as f64;
        assert!((accuracy - share).abs() < 1e-12, "predicted anew as it was evaluated");
        assert_eq!(summary["trainable"], bitfit["trainable"]);
        let beside = &bitfit["by_seed"][seed - 1]["constant"];
        assert_eq!(beside["value"], summary["constant"]["metrics"]["accuracy"]);
        for key in ["p", "verdict", "learned"] {
            assert_eq!(beside[key], summary["constant"][key], "{key}");
        }
        assert!(!dir.join("checkpoints").exists(), "nothing goes on from a run that is done");
        values.push(accuracy);
    }
    let mean = bitfit["quality"]["mean"].as_f64().unwrap();
    assert!((mean - (values[0] + values[1]) / 2.0).abs() < 1e-12);
    let first = |rate: &Value| rate["quality"]["mean"].as_f64().unwrap();
    let rates = bitfit["rates"].as_array().unwrap();
    assert_eq!(rates.len(), 2);
    assert!(rates.iter().filter(|r| r["learning_rate"] != rate).all(|r| first(r) <= values[0]));
    let confusion = bitfit["confusion"].as_array().unwrap();
    let rows: u64 =
        confusion.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(rows, 64, "32 rows, two seeds");
    let moved = |arm: &Value, term: &str| {
        let of = |m: &&Value| m["term"] == term;
        arm["moved"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of)
            .map(|m| m["mean"].as_f64().unwrap())
            .sum::<f64>()
    };
    assert!(moved(bitfit, "query") > 0.0 && moved(bitfit, "output_layer_norm") > 0.0);
    assert_eq!(moved(other, "output_layer_norm"), 0.0);
    assert!(other["versus"]["paired_t"].is_object() && bitfit["versus"].is_null());
    assert_eq!(other["versus"]["mcnemar"].as_array().unwrap().len(), 2);
    assert!(bitfit["cost"]["peak_rss_mib"]["mean"].as_f64().unwrap() > 10.0);
}

fn pages_show_the_figures(scratch: &Scratch, found: &Value) {
    let mean = found["tasks"][0]["arms"][0]["quality"]["mean"].as_f64().unwrap();
    let html = std::fs::read_to_string(scratch.path("out/report.html")).unwrap();
    let markdown = std::fs::read_to_string(scratch.path("out/report.md")).unwrap();
    assert!(html.contains("No &lt;LayerNorm&gt;") && !html.contains("<LayerNorm>"));
    assert!(html.contains("<h1>a_b &amp; &lt;c&gt;</h1>"));
    assert!(markdown.starts_with("# a\\_b \\& \\<c\\>\n") && !markdown.contains(" <LayerNorm>"));
    for outside in ["http://", "https://", "src=", "@import", "<script"] {
        let allowed = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!allowed.contains(outside), "{outside}");
    }
    for page in [&html, &markdown] {
        // What wants full fine-tuning beside it is not asked of a grid without.
        assert!(page.contains(&format!("{mean:.4}")) && page.contains("of the parameters"));
        assert!(!page.contains("times as fast as full fine-tuning"));
        assert!(page.contains("constant answer") && page.contains("0.5000 ± 0.0000"));
        assert!(page.contains("beside the constant answer") && page.contains(" of 2 seeds"));
        assert!(page.contains("The constant answer is the largest class"));
    }
    // A claim's cell is coloured by its verdict.
    for (holds, class) in [(true, "<td class=\"holds\">"), (false, "<td class=\"fails\">")] {
        let claims = found["claims"].as_array().unwrap().iter();
        let count = claims.filter(|claim| claim["measured"][0]["holds"] == holds).count();
        assert_eq!(html.matches(class).count(), count, "{class}");
    }
    assert!(html.contains("class=\"fails\""), "one does not hold");
    let plots: Vec<_> = std::fs::read_dir(scratch.path("out/plots")).unwrap().collect();
    assert_eq!(plots.len(), 5 + 2 + 2, "five of all arms, biases and confusion of each");
    for plot in plots {
        let svg = std::fs::read_to_string(plot.unwrap().path()).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("<title") && svg.contains("<desc"));
    }
}

fn again_nothing_is_run(scratch: &Scratch) {
    // Again: nothing is run, and the report is the same to the byte.
    let pages = || {
        ["report.json", "report.md", "report.html"]
            .map(|name| std::fs::read(scratch.path(&format!("out/{name}"))).unwrap())
    };
    let before = pages();
    let again = compare(scratch, &["--json"]);
    succeeded(&again);
    assert!(!stdout(&again).contains("\"event\":\"done\""));
    assert!(before == pages());
    // Another configuration is refused, and replaced when asked.
    let other = ["--set", "training.weight_decay=0.1"];
    refused(&compare(scratch, &other), 2, &["5 runs", "another configuration", "--overwrite"]);
    assert!(before == pages());
    succeeded(&compare(scratch, &["--overwrite", other[0], other[1]]));
    assert!(before != pages());
}

fn runs_are_shown_side_by_side(scratch: &Scratch) {
    let runs = scratch.bitfit(&["inspect", "--runs", "out"]);
    succeeded(&runs);
    let table = stdout(&runs);
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(table.contains("accuracy 0.") && table.contains("lr-1e-2-seed-1"));
    let json = scratch.bitfit(&["inspect", "--runs", "out/runs/grid/bitfit", "--json"]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["summary"]["method"], "bitfit");
    refused(&scratch.bitfit(&["inspect", "--runs", "base"]), 1, &["base", "no run"]);
}

#[test]
fn what_is_done_stays_where_another_configuration_cannot_begin() {
    let scratch = grid(GRID);
    succeeded(&compare(&scratch, &[]));
    let before = report(&scratch, "out");
    let nowhere = ["--overwrite", "--set", "model.model_name_or_path=nowhere"];
    refused(&compare(&scratch, &nowhere), 1, &["runs failed", "nowhere"]);
    let again = compare(&scratch, &["--json"]);
    succeeded(&again);
    assert!(!stdout(&again).contains("\"event\":\"done\""), "{}", stdout(&again));
    assert_eq!(report(&scratch, "out"), before);
}

#[test]
fn asked_to_end_it_reports_all_that_is_done() {
    let scratch = grid(GRID);
    succeeded(&compare(&scratch, &[]));
    std::fs::remove_dir_all(scratch.path("out/runs/grid/bitfit/lr-1e-3-seed-1")).unwrap();
    let grid = Grid::read(&scratch.path("grid.toml"), &[]).unwrap();
    let stop = AtomicBool::new(true);
    let options = CompareOptions { one_run: true, ..CompareOptions::default() };
    let ended = bitfit::internal::compare::compare(&grid, options, &mut |_| Ok(()), &stop);
    let message = ended.err().unwrap().to_string();
    assert!(message.contains("of 5 runs are done"), "{message}");
    let found = report(&scratch, "out");
    assert_eq!(found["tasks"][0]["arms"].as_array().unwrap().len(), 2, "later arms too");
}

#[test]
fn arms_of_different_rows_are_not_compared() {
    let scratch = grid(
        "[training]\nmax_steps = 4\n[[arm]]\nname = \"all\"\n[[arm]]\nname = \"few\"\nset = { data = { train_samples = 16 } }\n\
         [[arm]]\nname = \"others\"\nset = { data = { eval = \"train.tsv\" } }\n",
    );
    succeeded(&compare(&scratch, &[]));
    let found = report(&scratch, "out");
    let task = &found["tasks"][0];
    assert_eq!((&task["same_base"], &task["same_rows"]), (&true.into(), &false.into()));
    assert!(task["arms"][1]["versus"]["paired_t"].is_object());
    assert_eq!(task["arms"][2]["versus"]["verdict"], "other_rows");
    let markdown = std::fs::read_to_string(scratch.path("out/report.md")).unwrap();
    assert!(markdown.contains("its arms use different rows"), "{markdown}");
    assert!(markdown.contains(" or 16 training rows"), "{markdown}");
    assert!(markdown.contains("not comparable"), "{markdown}");
}

#[test]
fn claims_are_of_the_arms_that_they_name() {
    let scratch = grid(
        "[training]\nmax_steps = 4\n[[arm]]\nname = \"hopeless\"\nlearning_rates = [1e30]\n[[arm]]\nname = \"tame\"\n\
         [[arm]]\nname = \"full\"\nset = { method = { name = \"full\" } }\n",
    );
    refused(&compare(&scratch, &[]), 1, &["2 of 6 runs failed"]);
    let found = report(&scratch, "out");
    assert_eq!(found["claims_about"], serde_json::json!(["hopeless", "full"]));
    for claim in found["claims"].as_array().unwrap() {
        assert_eq!(claim["measured"][0]["text"], "hopeless has no finished run");
    }
}

#[test]
fn rates_that_are_the_heads_alone_are_told() {
    let scratch = grid(
        "[bitfit]\nbias_learning_rate = 1e-3\n[training]\nmax_steps = 2\n[[arm]]\nname = \"a\"\nlearning_rates = [1e-3, 1e-2]\n",
    );
    let output = compare(&scratch, &["--set", "compare.seeds=[1]"]);
    succeeded(&output);
    let told = "arm \"a\": learning_rates apply to the head only";
    assert_eq!(stderr(&output).matches(told).count(), 1, "{}", stderr(&output));
    let scratch = grid(
        "[training]\nmax_steps = 2\nhead_learning_rate = 1e-3\n[[arm]]\nname = \"a\"\nlearning_rates = [1e-3, 1e-2]\n",
    );
    let output = compare(&scratch, &["--set", "compare.seeds=[1]"]);
    succeeded(&output);
    let told =
        "learning_rates apply to the biases only, because training.head_learning_rate = 1e-3";
    assert_eq!(stderr(&output).matches(told).count(), 1, "{}", stderr(&output));
}

#[test]
fn what_no_comparison_wrote_is_left_alone() {
    let scratch = grid("[[arm]]\nname = \"a\"\n");
    std::fs::create_dir(scratch.path("out")).unwrap();
    std::fs::create_dir(scratch.path("out/plots")).unwrap();
    refused(&compare(&scratch, &[]), 2, &["out holds plots", "compare.output_dir"]);
    assert!(!scratch.path("out/runs").exists());
}

fn started(scratch: &Scratch, dir: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bitfit"))
        .args(["compare", "--config", scratch.path("grid.toml").to_str().unwrap()])
        .args(["--set", &format!("compare.output_dir={}", scratch.path(dir).display())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().is_ok());
}

#[test]
fn killed_and_started_again_it_reports_the_same() {
    let scratch = grid(GRID);
    succeeded(&compare(&scratch, &[]));
    for after in [250, 600, 900, 1300, 700] {
        let mut child = started(&scratch, "killed");
        std::thread::sleep(Duration::from_millis(after));
        signal(&child, "-KILL");
        child.wait().unwrap();
    }
    // Asked to end, it says how to go on. (It may be done before it hears of it.)
    let child = started(&scratch, "killed");
    std::thread::sleep(Duration::from_millis(400));
    signal(&child, "-TERM");
    let asked = child.wait_with_output().unwrap();
    if asked.status.code() == Some(130) {
        assert!(
            stderr(&asked).contains("run the same command again to continue"),
            "{}",
            stderr(&asked)
        );
    }
    succeeded(&started(&scratch, "killed").wait_with_output().unwrap());
    assert_eq!(timeless(report(&scratch, "killed")), timeless(report(&scratch, "out")));
}

#[test]
fn a_run_that_fails_is_reported_and_passed_over() {
    let scratch = grid(
        "tune = true\n[training]\nnum_train_epochs = 1\n[[arm]]\nname = \"wild\"\nlearning_rates = [1e30, 1e-2]\n\
         [[arm]]\nname = \"hopeless\"\nlearning_rates = [1e30]\n",
    );
    let output = compare(&scratch, &[]);
    refused(&output, 1, &["3 of 5 runs failed", "report.html", "skipped"]);
    let found = report(&scratch, "out");
    assert_eq!(found["runs_done"], 2);
    let failures = found["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures[0]["problem"].as_str().unwrap().contains("learning_rate"), "{failures:?}");
    let arms = found["tasks"][0]["arms"].as_array().unwrap();
    assert_eq!((arms.len(), &arms[0]["learning_rate"]), (1, &0.01.into()));
    let markdown = std::fs::read_to_string(scratch.path("out/report.md")).unwrap();
    assert!(
        markdown.contains("Failed runs") && markdown.contains("2 of 5 runs are done, 3 failed")
    );
}

#[test]
fn one_seed_names_no_winner() {
    let scratch = grid(
        "[training]\nmax_steps = 4\n[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nset = { bitfit = { layers = \"0\" } }\n",
    );
    succeeded(&compare(&scratch, &["--set", "compare.seeds=[3]"]));
    assert_eq!(report(&scratch, "out")["tasks"][0]["arms"][1]["versus"]["verdict"], "one_seed");
    let markdown = std::fs::read_to_string(scratch.path("out/report.md")).unwrap();
    assert!(markdown.contains("one seed: no verdict"));
    assert!(!markdown.contains("better than") && !markdown.contains("worse than"));
}

#[test]
fn random_biases_are_whole_ones_up_to_the_number() {
    let base = tiny_base();
    let plan = |count, seed| {
        let switches = Switches { random: Some((count, seed)), ..Switches::default() };
        FreezePlan::new(base.config.architecture, &base.shapes(), &base.new, &switches)
    };
    let biases = |seed| -> Vec<(String, u64)> {
        let plan = plan(240, seed).unwrap();
        let of_encoder = plan.trainable().filter(|p| p.is_bias() && p.place.term.is_some());
        of_encoder.map(|p| (p.name.clone(), p.numel())).collect()
    };
    assert_eq!(biases(1), biases(1));
    assert!((2..9).any(|seed| biases(seed) != biases(1)));
    for seed in 0..20 {
        let sum: u64 = biases(seed).iter().map(|(_, count)| count).sum();
        assert!((240 - 32..=240).contains(&sum), "{sum}");
    }
    for count in [0, 31, 1_000_000] {
        let message = plan(count, 1).unwrap_err().to_string();
        assert!(
            message.contains("bitfit.random_biases") && message.contains("expected 32 to"),
            "{message}"
        );
    }
}

/// Whether the methods that the shipped grids name are there.
fn has_methods() -> bool {
    toml::Table::try_from(RunConfig::default()).unwrap().contains_key("method")
}

#[test]
fn shipped_grids_are_read() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("configs/compare")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if has_methods() || !text.contains("method.name") {
            let grid = Grid::read(&path, &[]).unwrap();
            assert!(grid.total() > 1, "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn the_smoke_grid_runs_every_arm() {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(root().join("configs/compare/smoke.toml")).unwrap();
    let mut parts = text.split("[[arm]]").map(str::to_owned);
    let head = parts.next().unwrap().replace("../movie-reviews.toml", "config.toml");
    let arms: Vec<String> =
        parts.filter(|arm| has_methods() || !arm.contains("method.name")).collect();
    let grid = arms.iter().fold(head, |grid, arm| grid + "[[arm]]" + arm);
    scratch.write("grid.toml", grid);
    let (base, out) = (golden_dir().join("tiny-bert"), scratch.path("out"));
    let sets = [
        format!("model.model_name_or_path={}", base.display()),
        format!("compare.output_dir={}", out.display()),
        "training.max_steps=6".into(),
        "training.eval_steps=3".into(),
    ];
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    succeeded(&compare(&scratch, &args));
    let found = report(&scratch, "out");
    assert_eq!(found["tasks"][0]["arms"].as_array().unwrap().len(), arms.len());
    assert!(Path::new(&out).join("report.html").exists());
}

/// All files below a directory, by their relative paths.
fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = files_below(&path).into_iter();
            found.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Asserts that two reports have the same files, with the same bytes.
#[track_caller]
fn same_files(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in found {
        assert!(*bytes == expected[name], "{name} differs");
    }
}

#[test]
fn a_report_is_rendered_again_from_its_json_alone() {
    let scratch = grid(
        "tune = true\n[training]\nmax_steps = 8\neval_steps = 4\n[[task]]\nname = \"few\"\nset = { \"data.train_samples\" = 16 }\n\
         [[task]]\nname = \"all\"\n[[arm]]\nname = \"BitFit\"\nlearning_rates = [1e-3, 1e-2]\n\
         [[arm]]\nname = \"full\"\nset = { method = { name = \"full\" } }\n[[arm]]\nname = \"hopeless\"\nlearning_rates = [1e30]\n",
    );
    refused(&compare(&scratch, &[]), 1, &["runs failed"]);
    let written = || {
        let mut files = files_below(&scratch.path("out"));
        files.retain(|name, _| !name.starts_with("runs/") && !name.starts_with('.'));
        files
    };
    let before = written();
    assert!(before.len() > 20 && before.contains_key("plots/training-rows.svg"));
    // Elsewhere, from a copy, without the runs.
    scratch.write("copy.json", &before["report.json"]);
    let output = scratch.bitfit(&["compare", "--render", "copy.json", "--output", "new", "--json"]);
    succeeded(&output);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&told["event"], &told["page"]), (&"rendered".into(), &"new/report.html".into()));
    same_files(&files_below(&scratch.path("new")), &before);
    a_share_of_an_arm_that_has_not_learned_says_nothing(&scratch);
    // In its place.
    scratch.write("out/report.html", "");
    std::fs::remove_file(scratch.path("out/report.md")).unwrap();
    succeeded(&scratch.bitfit(&["compare", "--render", "out/report.json"]));
    same_files(&written(), &before);
    // Another report is replaced when asked.
    let text = String::from_utf8(before["report.json"].clone()).unwrap();
    scratch.write("copy.json", text.replace("\"title\": \"grid\"", "\"title\": \"other\""));
    let other = ["compare", "--render", "copy.json", "--output", "new"];
    refused(&scratch.bitfit(&other), 2, &["new contains plots, report.json", "--overwrite"]);
    same_files(&files_below(&scratch.path("new")), &before);
    succeeded(&scratch.bitfit(&[&other[..], &["--overwrite"]].concat()));
    assert_eq!(report(&scratch, "new")["title"], "other");
    // A comparison that is writing there keeps its directory to itself.
    let lock = bitfit::internal::lock::Lock::take(&scratch.path("out"), "").unwrap();
    let own = ["compare", "--render", "out/report.json"];
    refused(&scratch.bitfit(&own), 2, &["a comparison is writing to out"]);
    drop(lock);
    what_is_no_report_is_named(&scratch, &text);
}

/// A claim about a share of full fine-tuning's quality has no verdict where full fine-tuning has
/// not learned.
fn a_share_of_an_arm_that_has_not_learned_says_nothing(scratch: &Scratch) {
    let mut changed = report(scratch, "new");
    let claim = |dir: &str| {
        let claims = report(scratch, dir)["claims"].clone();
        let of_share = |claim: &&Value| claim["claim"].as_str().unwrap().contains("95 to 99 %");
        claims.as_array().unwrap().iter().find(of_share).unwrap()["measured"][0].clone()
    };
    for (failed, of_seeds) in [(vec![0], "1 of 2"), (vec![0, 1], "2 of 2"), (vec![], "")] {
        let full = changed["tasks"][0]["arms"].as_array_mut().unwrap().iter_mut();
        let full = full.into_iter().find(|arm| arm["name"] == "full").unwrap();
        for (i, seed) in full["by_seed"].as_array_mut().unwrap().iter_mut().enumerate() {
            seed["constant"]["learned"] = (!failed.contains(&i)).into();
        }
        scratch.write("changed.json", changed.to_string());
        let args = ["compare", "--render", "changed.json", "--output", "changed", "--overwrite"];
        succeeded(&scratch.bitfit(&args));
        let (claim, expected) = (claim("changed"), format!("with {of_seeds} seeds, so the share"));
        let text = claim["text"].as_str().unwrap();
        assert_eq!(text.contains(&expected), !failed.is_empty(), "{text}");
        if !failed.is_empty() {
            assert!(
                claim["holds"].is_null() && text.contains("full itself is no better"),
                "{text}"
            );
        }
    }
}

/// An error says what is wrong in a `report.json`, here in changes of the report `text`.
fn what_is_no_report_is_named(scratch: &Scratch, text: &str) {
    for (found, parts) in [
        ("{\"title\": 1}".to_owned(), ["copy.json", "expected a string", "line 1"]),
        (text.replace("\"tune\": true,", ""), ["copy.json", "missing field `tune`", "line"]),
        (text.replace("\"tune\"", "\"turn\""), ["copy.json", "unknown field `turn`", "line"]),
    ] {
        scratch.write("copy.json", found);
        refused(
            &scratch.bitfit(&["compare", "--render", "copy.json", "--output", "no"]),
            1,
            &parts,
        );
        assert!(!scratch.path("no").exists());
    }
    refused(&scratch.bitfit(&["compare"]), 2, &["--config"]);
    refused(&compare(scratch, &["--render", "copy.json"]), 2, &["--render", "--config"]);
    refused(&compare(scratch, &["--output", "no"]), 2, &["--output", "--config"]);
}

#[test]
fn the_reports_of_the_documents_are_rendered_from_their_json() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("docs/reports")).unwrap() {
        let (scratch, path) = (tempfile::tempdir().unwrap(), entry.unwrap().path());
        render(&path.join("report.json"), Some(scratch.path()), false).unwrap();
        let without_html = |dir: &Path| {
            let mut files = files_below(dir);
            files.remove("report.html");
            files
        };
        same_files(&without_html(scratch.path()), &without_html(&path));
        count += 1;
    }
    assert!(count > 3);
}
