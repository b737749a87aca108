//! What is written to stderr and stdout: none of it ends a run, and none of what it quotes commands
//! a terminal.

use crate::common::{Scratch, refused, reviews, root, stderr, stdout, succeeded};
use crate::standin::{Hub, distilbert};
use bitfit::internal::delta::Delta;
use bitfit::internal::escape;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

const TRAIN: &str = env!("CARGO_BIN_EXE_bitfit-train");
const BITFIT: &str = env!("CARGO_BIN_EXE_bitfit");

/// A run of 200 steps that evaluates and saves on the way, as a command that writes into the
/// directory `output`.
fn long(scratch: &Scratch, output: &str) -> Vec<String> {
    let output = format!("training.output_dir={}", scratch.path(output).display());
    let config = scratch.path("config.toml").display().to_string();
    let sets = ["training.max_steps=200", "training.logging_steps=1", &output];
    let sets = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
    [TRAIN, "--config", &config].map(str::to_owned).into_iter().chain(sets).collect()
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_remove("RUST_LOG");
    command
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Runs `words` in a terminal; tests/in_terminal.py has what `how` and `until` say.
fn in_terminal(how: &str, until: &str, words: &[String]) -> Output {
    let script = root().join("tests/in_terminal.py");
    let mut python = Command::new("python3");
    python.arg(script).args([how, until]).args(words).env_remove("RUST_LOG").output().unwrap()
}

fn bytes(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Without a terminal, a disk or a reader for its logs, a run ends as any other.
#[test]
fn a_stderr_that_cannot_be_written_ends_no_training() {
    let scratch = Scratch::new();
    assert!(command(&long(&scratch, "run")).stderr(Stdio::null()).status().unwrap().success());
    let same = |status: ExitStatus, run: &str| {
        assert_eq!(status.code(), Some(0), "{run}");
        for file in ["delta.safetensors", "checkpoints/step-000200/delta.safetensors"] {
            let (found, expected) = (scratch.path(run).join(file), scratch.path("run").join(file));
            assert!(bytes(found) == bytes(expected), "{run}: {file}");
        }
    };
    let mut profiled = command(&long(&scratch, "full"));
    same(profiled.arg("--profile").stderr(full()).status().unwrap(), "full");

    let mut child = command(&long(&scratch, "gone")).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    same(child.wait().unwrap(), "gone");

    let closed = in_terminal("close", "training  ", &long(&scratch, "closed"));
    same(closed.status, "closed");
}

/// Ctrl-C with `2>&1 | tee log` ends both at once.
#[test]
fn a_signal_is_heard_after_the_reader_of_the_logs_is_gone() {
    let scratch = Scratch::new();
    let mut words = long(&scratch, "run");
    words.extend(["--set", "training.max_steps=1000000"].map(str::to_owned));
    let mut child = command(&words).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("step 1,") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended before its first step");
    }
    drop(reader);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary = String::from_utf8(bytes(scratch.path("run/summary.json"))).unwrap();
    assert!(summary.contains("\"interrupted\": true"), "{summary}");
}

/// The task files below `dir`, by their paths in it.
fn deltas(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (vec![], vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("delta.safetensors") {
                found.push((path.strip_prefix(dir).unwrap().to_owned(), bytes(path)));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_stderr_that_cannot_be_written_ends_no_comparison() {
    let scratch = Scratch::new();
    scratch.write(
        "grid.toml",
        "[compare]\noutput_dir = \"out\"\nbase = \"config.toml\"\nseeds = [1]\n[training]\nmax_steps = 60\n\
         [[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nset = { \"training.weight_decay\" = 0.1 }\n",
    );
    let compare = |output: &str| {
        let config = scratch.path("grid.toml").display().to_string();
        let output = format!("compare.output_dir={}", scratch.path(output).display());
        [BITFIT, "compare", "--config", &config, "--set", &output].map(str::to_owned)
    };
    let full = command(&compare("full")).stderr(full()).status().unwrap();
    assert_eq!(full.code(), Some(0));
    let expected = deltas(&scratch.path("full"));
    assert_eq!(expected.len(), 2);
    // While a run trains, and while the process of the next one starts.
    for (output, until) in [("closed", "run 1/"), ("between", "accuracy 0.")] {
        let closed = in_terminal("close", until, &compare(output));
        assert_eq!(closed.status.code(), Some(0), "{closed:?}");
        assert!(deltas(&scratch.path(output)) == expected, "{output}");
        assert!(scratch.path(output).join("report.html").exists());
    }
}

#[test]
fn a_stderr_that_cannot_be_written_ends_no_evaluation_and_no_prediction() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    for args in [["predict", "the film was great"], ["eval", "--json"]] {
        let mut command = Command::new(BITFIT);
        command.args(args).args(["--run", "run"]).current_dir(scratch.path(""));
        let expected = command.env("RUST_LOG", "debug").output().unwrap();
        succeeded(&expected);
        let output = command.stderr(full()).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), stdout(&expected)));
    }
}

/// A closed terminal aside, a hang-up asks a run to end, as the warnings of batch systems do; under
/// nohup nothing is asked.
#[test]
fn warnings_and_hang_ups_end_a_run_after_its_step() {
    let scratch = Scratch::new();
    let begun = |mut command: Command| {
        let mut child =
            command.args(["--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        (child, reader)
    };
    let send = |id: u32, names: &[&str]| {
        for name in names {
            let kill = Command::new("kill").args([*name, &id.to_string()]).status();
            assert!(kill.unwrap().success());
        }
    };
    let summary = |run: &str| -> Value {
        serde_json::from_slice(&bytes(scratch.path(run).join("summary.json"))).unwrap()
    };
    for signals in [&["-HUP"][..], &["-USR1", "-USR1", "-XCPU", "-USR2", "-TERM"]] {
        let run = signals.concat();
        // Far longer than the signals take to come.
        let mut longest = command(&long(&scratch, &run));
        for set in ["max_steps=5000", "logging_steps=50", "eval_steps=5000"] {
            longest.args(["--set", &format!("training.{set}")]);
        }
        let (mut child, reader) = begun(longest);
        send(child.id(), signals);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signals:?}");
        drop(reader);
        let summary = summary(&run);
        assert_eq!(summary["interrupted"], true, "{signals:?}: {summary}");
        let step = format!("{run}/checkpoints/step-{:06}", summary["steps"].as_u64().unwrap());
        assert!(scratch.path(&step).exists(), "{step}: it is saved");
    }
    let mut nohup = Command::new("nohup");
    nohup.args(long(&scratch, "nohup")).env_remove("RUST_LOG");
    let (mut child, reader) = begun(nohup);
    send(child.id(), &["-HUP"]);
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(summary("nohup")["steps"], 200);
}

/// Names that set a terminal's title, clear it, turn the order round, are not seen, or begin a line
/// of their own.
const HOSTILE: &str =
    "a\u{1b}]0;x\u{7}b\u{9b}2Jc\u{202e}d\u{200b}e\u{2028}f\u{7f}g\u{feff}h\u{85}i\u{2066}j\rk";

/// Asserts that nothing in `found` commands a terminal or is not seen, and that the hostile name is
/// there, readable.
#[track_caller]
fn harmless(found: &[u8]) {
    let text = std::str::from_utf8(found).unwrap();
    let commands = |letter: char| {
        (letter.is_control() && !"\n\t".contains(letter))
            || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    assert_eq!(text.find(commands), None, "{text:?}");
    assert!(text.contains("]0;x") && text.contains("2Jc"), "{text}");
}

/// [`harmless`] of both outputs of a command together.
#[track_caller]
fn harmless_output(output: &Output) {
    harmless(&[&output.stdout[..], &output.stderr[..]].concat());
}

fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[test]
fn errors_about_files_command_no_terminal() {
    let scratch = Scratch::new();
    let quoted = |text: &str| Value::from(text).to_string();
    // A column of a table, in each of its forms.
    for (file, text) in [
        ("train.tsv", format!("{HOSTILE}\tlabel\na\tb\n")),
        ("train.csv", format!("\"{HOSTILE}\",label\na,b\n")),
        ("train.jsonl", format!("{{{}: 1}}\n", quoted(HOSTILE))),
    ] {
        scratch.write(file, text.replace('\r', ""));
        let data = format!("data.train={}", scratch.path(file).display());
        for more in [&[][..], &["--json"]] {
            let output = scratch.train(&[&["--set", &data][..], more].concat());
            refused(&output, 1, &[file]);
            harmless_output(&output);
        }
    }
    // A key of the configuration, and its own name.
    let config = scratch.write("bad.toml", format!("[data]\n{} = 1\n", toml_string(HOSTILE)));
    let output = scratch.bitfit(&["train", "--config", config.to_str().unwrap()]);
    refused(&output, 2, &["bad.toml"]);
    harmless_output(&output);
    for path in [HOSTILE, "a\nerror: b ]0;x 2Jc"] {
        let output = scratch.bitfit(&["predict", "--run", path, "text"]);
        refused(&output, 1, &["not a run directory"]);
        harmless_output(&output);
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    }
    // Arguments that no command has; clap itself leaves out what begins with an escape.
    let argument = format!("--{}", HOSTILE.replace('\u{1b}', ""));
    let output = scratch.bitfit(&["predict", &argument]);
    refused(&output, 2, &["unexpected argument"]);
    harmless_output(&output);
    // A base's files.
    let config = String::from_utf8(bytes(scratch.path("base/config.json"))).unwrap();
    let inspect = ["inspect", "--model", "base"];
    scratch.write("base/config.json", config.replace("\"bert\"", &quoted(HOSTILE)));
    let output = scratch.bitfit(&inspect);
    refused(&output, 1, &["config.json", "model_type"]);
    harmless_output(&output);
    scratch.write("base/config.json", config);
    scratch.write("train.tsv", reviews(8, 1));
    let class = json!({"tokenizer_class": HOSTILE}).to_string();
    scratch.write("base/tokenizer_config.json", class);
    let output = scratch.train(&["--dry-run"]);
    refused(&output, 1, &["tokenizer_config.json"]);
    harmless_output(&output);
}

#[test]
fn logs_bars_and_tables_command_no_terminal() {
    let scratch = Scratch::new();
    let data = String::from_utf8(bytes(scratch.path("train.tsv"))).unwrap();
    // A class of that name, and one without texts, which is warned of.
    let name = HOSTILE.replace('\r', "");
    for (i, line) in data.lines().skip(1).enumerate() {
        let (text, class) = line.split_once('\t').unwrap();
        let class = if class == "positive" { &name } else { class };
        scratch.write(&format!("classes/{class}/{i}.txt"), text);
    }
    std::fs::create_dir(scratch.path(&format!("classes/{name}-none"))).unwrap();
    let config = String::from_utf8(bytes(scratch.path("config.toml"))).unwrap();
    let config =
        config.replace("\"train.tsv\"", "\"classes\"").replace("eval = \"eval.tsv\"\n", "");
    scratch.write("config.toml", config + "max_steps = 2\n");
    let run = format!("runs/{HOSTILE}\nb");
    let output = scratch.path(&run);
    let set = format!("training.output_dir={}", output.to_str().unwrap());
    for more in [&["--dry-run"][..], &["--json", "--dry-run"], &[]] {
        let output = scratch.train(&[&["--set", &set][..], more].concat());
        succeeded(&output);
        harmless(&output.stderr);
        if more.is_empty() {
            assert!(stderr(&output).contains("WARN"), "{}", stderr(&output));
        }
    }
    let tables = [
        vec!["eval", "--run", &run],
        vec!["inspect", "--runs", "runs"],
        vec!["inspect", "--runs", "runs", "--json"],
        vec!["inspect", "--delta", "hostile.safetensors"],
        vec!["inspect", "--delta", "hostile.safetensors", "--json"],
        vec!["eval", "--run", &run, "--json"],
        vec!["predict", "--run", &run, HOSTILE],
    ];
    let mut delta = Delta::read(&output.join("delta.safetensors")).unwrap();
    delta.meta.base_name = HOSTILE.into();
    delta.meta.metrics.insert(HOSTILE.into(), 0.5);
    delta.write(&scratch.path("hostile.safetensors")).unwrap();
    for args in tables {
        let output = scratch.bitfit(&args);
        succeeded(&output);
        harmless(&output.stdout);
    }
    // The bar of a comparison, drawn on a terminal: what is left without the bars' own commands.
    let arm = format!("[[arm]]\nname = {}\n", toml_string(HOSTILE));
    scratch.write(
        "grid.toml",
        format!("[compare]\noutput_dir = \"out\"\nbase = \"config.toml\"\ntitle = {}\nseeds = [1]\n{arm}", toml_string(HOSTILE)),
    );
    let config = scratch.path("grid.toml").display().to_string();
    let words = [BITFIT, "compare", "--config", &config].map(str::to_owned);
    let output = in_terminal("read", "-", &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let own = regex::Regex::new("\r\n|\r?\x1b\\[[0-9;]*[A-DKm]|\r").unwrap();
    assert!(own.replace_all(&shown, "").contains("step 2/2"), "{shown}");
    harmless(own.replace_all(&shown, "").as_bytes());
    for report in ["out/report.md", "out/report.html"] {
        harmless(&bytes(scratch.path(report)));
    }
}

/// What Markdown and YAML make of a card's names is those names.
#[test]
fn a_model_card_quotes_what_is_not_its_own() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "max_steps = 2");
    succeeded(&scratch.train(&[]));
    let mut delta = Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
    delta.meta.task.labels = vec![format!("a`b``<b>{HOSTILE}"), "`".into()];
    delta.meta.metrics.insert("license: mit\nbase_model".into(), 0.4321);
    delta.meta.metrics.insert(HOSTILE.into(), 0.4321);
    delta.write(&scratch.path("hostile.safetensors")).unwrap();
    let output = format!("exported/{HOSTILE}|# <b>");
    let args = [
        "export",
        "--model",
        "base",
        "--delta",
        "hostile.safetensors",
        "--format",
        "hf",
        "--output",
        &output,
    ];
    succeeded(&scratch.bitfit(&args));
    let card = bytes(scratch.path(&output).join("README.md"));
    harmless(&card);
    let card = String::from_utf8(card).unwrap();
    assert!(card.contains("```a`b``<b>"), "{card}");
    assert!(card.contains("`` ` ``"), "{card}");
    assert!(card.contains("\\|# \\<b\\>\n"), "{card}");
    assert!(!card.contains("license"), "{card}");
    let yaml = card.split("---\n").nth(1).unwrap();
    assert!(yaml.contains("- name: \"a\\u001b]0;x"), "{yaml}");
    let metrics: Vec<&str> = yaml.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(metrics.contains(&"- accuracy") && !card.contains("0.4321"), "{yaml}");
}

/// Letters of every script stay as they are, with their accents, joiners and spaces.
#[test]
fn text_that_people_read_stays() {
    let texts = [
        "Phim hay qua\u{301}, tie\u{302}\u{301}ng Vie\u{323}\u{302}t",
        "می\u{200c}خواهم",
        "क्\u{200d}ष",
        "👩\u{200d}💻 ❤\u{fe0f}",
        "日本\u{3000}語",
        "12\u{a0}000 €",
        "\"quoted\" \\ `code`",
        "one\n\ttwo",
    ];
    for text in texts {
        assert_eq!(escape::text(text), text);
    }
    assert_eq!(escape::line("a\tb\nc\\d"), "a\\tb\\nc\\d");
    // A joiner that joins nothing is only there to deceive.
    assert_eq!(
        escape::line("pay\u{200d}pal \u{200d}é\u{200d}"),
        "pay\\u{200d}pal \\u{200d}é\\u{200d}"
    );
}

proptest! {
    #[test]
    fn whatever_is_escaped_is_still_said(text in any::<String>()) {
        prop_assert_eq!(escape::text(escape::text(&text)), escape::text(&text));
        let json = Value::from(text.as_str()).to_string();
        let escaped = escape::json(&json);
        prop_assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), Value::from(text.as_str()));
        if text.chars().all(|letter| (letter as u32) < 0x1_0000) {
            prop_assert_eq!(serde_json::from_str::<String>(&escape::quoted(&text)).unwrap(), text.clone());
        }
        // A code span ends at a run of backticks as long as the one that it begins with.
        let code = escape::code(&text);
        let inner = code.trim_matches('`');
        let fence = (code.len() - code.trim_start_matches('`').len()).min(code.len() - code.trim_end_matches('`').len());
        prop_assert!(!inner.split(|letter| letter != '`').any(|run| run.len() == fence), "{}", code);
    }
}

#[test]
fn a_shell_reads_arguments_as_they_were() {
    let arguments: Vec<std::ffi::OsString> = [
        "",
        "runs/a-b_c.d:1",
        "with space",
        "it's",
        "$HOME `x` \"y\" !z *",
        "a\nb",
        HOSTILE,
        "~",
        "=ls",
        "'",
        "\\",
    ]
    .into_iter()
    .map(Into::into)
    .chain([std::ffi::OsStr::from_bytes(b"a\xff'b\\c\n").to_owned()])
    .collect();
    let shown: Vec<String> = arguments.iter().map(|argument| escape::shell(argument)).collect();
    assert_eq!(shown[1], "runs/a-b_c.d:1");
    shown.iter().for_each(|shown| assert_eq!(&escape::line(shown), shown));
    let script = format!("printf '%s\\0' {}", shown.join(" "));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let expected: Vec<u8> =
        arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
    assert_eq!(output.stdout, expected, "{script}");
}

/// What a run says at its end can be typed, whatever its directory is called.
#[test]
fn the_command_to_try_can_be_typed() {
    let scratch = Scratch::new();
    let run = scratch.path("my runs/it's\n$1");
    let set = format!("training.output_dir={}", run.to_str().unwrap());
    let output = scratch.train(&["--set", "training.max_steps=2", "--set", &set]);
    succeeded(&output);
    let text = stderr(&output);
    let line = text.lines().find_map(|line| line.split_once("try it: ")).unwrap().1;
    let output = Command::new("bash").args(["-c", line]).output().unwrap();
    succeeded(&output);
    assert!(stdout(&output).contains("\"label\""), "{line}");
}

/// A library that lets a process have `THREADS` more threads at once, as a limit of processes does.
fn few_threads(scratch: &Scratch) -> PathBuf {
    let source = scratch.write(
        "threads.c",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static int running;
struct work { void *(*function)(void *); void *argument; };

static void *run(void *pointer) {
  struct work work = *(struct work *)pointer;
  free(pointer);
  void *result = work.function(work.argument);
  __sync_fetch_and_sub(&running, 1);
  return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
  if (__sync_fetch_and_add(&running, 1) >= atoi(getenv("THREADS"))) {
    __sync_fetch_and_sub(&running, 1);
    return EAGAIN;
  }
  struct work *work = malloc(sizeof *work);
  *work = (struct work){function, argument};
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
  return real(thread, attributes, run, work);
}
"#,
    );
    let library = scratch.path("threads.so");
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", "-x", "c", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().unwrap().success());
    library
}

#[test]
fn without_more_threads_everything_is_done_on_those_there_are() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "max_steps = 4");
    std::fs::create_dir(scratch.path("texts")).unwrap();
    for (i, line) in reviews(8, 1).lines().skip(1).enumerate() {
        let (text, class) = line.split_once('\t').unwrap();
        scratch.write(&format!("texts/{class}/{i}.txt"), text);
    }
    let library = few_threads(&scratch);
    let limited = |threads: usize, program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(scratch.path("")).env_remove("RUST_LOG");
        command.env("LD_PRELOAD", &library).env("THREADS", threads.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{threads} threads: {}", stderr(&output));
        output
    };
    let eval = ["eval", "--run", "run", "--data", "texts", "--json"];
    let train = ["--config", "config.toml", "--overwrite"];
    succeeded(&scratch.train(&[]));
    let (expected, predict) =
        (scratch.bitfit(&eval), ["predict", "--run", "run", "the film was great"]);
    let loss = |output: &Output| {
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["metrics"]["loss"].as_f64().unwrap()
    };
    for threads in [0, 1, 2, 3, 5, 9, 10, 12] {
        let found = limited(threads, BITFIT, &eval);
        assert!((loss(&found) - loss(&expected)).abs() < 1e-5);
        limited(threads, BITFIT, &predict);
        limited(threads, TRAIN, &train);
    }
}

/// The message names the directory; libtorch's own would be that a library of its cannot be loaded.
#[test]
fn a_working_directory_that_was_deleted_is_named() {
    let scratch = Scratch::new();
    let script = "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"";
    for (program, argument) in [(BITFIT, "--version"), (TRAIN, "--help")] {
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "bash", program, argument]).current_dir(scratch.path(""));
        refused(&shell.output().unwrap(), 2, &["the working directory", "/gone", "is gone"]);
    }
}

#[test]
fn scripts_find_the_repository_whatever_cd_would_say() {
    let script = ". scripts/common.sh && cd /tmp && printf %s \"$root\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).current_dir(root()).env("CDPATH", root());
    let output = bash.output().unwrap();
    assert_eq!(stdout(&output), root().to_str().unwrap(), "{}", stderr(&output));
    // A script that goes anywhere first takes it away itself.
    for script in std::fs::read_dir(root().join("scripts")).unwrap() {
        let path = script.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        // Of an absolute path, CDPATH says nothing.
        let goes = |line: &&str| {
            line.split_once("$(").is_some_and(|(_, inside)| {
                format!(" {inside}").contains(" cd ") && !line.contains("readlink -f")
            })
        };
        let knows = |line: &&str| *line != "unset CDPATH" && !line.ends_with("/common.sh\"");
        let mut lines = text.lines().take_while(knows);
        assert_eq!(lines.find(goes), None, "{}", path.display());
    }
}

/// What is sent over the network is no part of a log; and a download goes on without a stderr.
#[test]
fn no_log_shows_a_token() {
    let hub = Hub::of(&distilbert().private("hf_of_nobody_else"));
    let folder = tempfile::tempdir().unwrap();
    let inspect = |home: &str, logs: &str, stderr: Stdio| {
        let mut command = Command::new(BITFIT);
        command.args(["inspect", "--model", "distilbert/distilbert-base-uncased"]);
        command.env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", folder.path().join(home));
        command.env("HF_TOKEN", "hf_of_nobody_else").env("RUST_LOG", logs).stderr(stderr);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (home, logs) in [("a", "trace"), ("b", "ureq=trace,ureq_proto=trace,rustls=trace")] {
        let text = inspect(home, logs, Stdio::piped());
        assert!(text.contains("DEBUG"), "{text}");
        // A dump is of lines of sixteen bytes.
        for part in ["hf_of_no", "f_nobody", "ody_else"] {
            assert!(!text.contains(part), "{text}");
        }
    }
    inspect("c", "trace", full().into());
}
