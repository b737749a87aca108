//! What the tests share: golden files, small data, the binaries.

use bitfit::internal::base::Base;
use bitfit::internal::data::Encoding;
use bitfit::internal::models::{Architecture, Dropouts, LongTexts, Task, TaskType, by_model_type};
use bitfit::internal::nn::Pooling;
use bitfit::internal::task_model::TaskModel;
use parquet::data_type::{ByteArrayType, DataType};
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tch::{Device, Tensor};

pub const NO_DROPOUT: Dropouts = Dropouts { hidden: 0.0, attention: 0.0, classifier: None };

/// Where the tests' models are: the CPU, or what BITFIT_TEST_DEVICE says (`cuda`).
pub fn device() -> Device {
    match std::env::var("BITFIT_TEST_DEVICE").as_deref() {
        Ok("cuda") => {
            assert!(bitfit::internal::cuda::device_count().unwrap() > 0);
            Device::Cuda(0)
        }
        _ => Device::Cpu,
    }
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn golden_dir() -> PathBuf {
    root().join("tests/golden")
}

/// The tensors of a file of scripts/make_golden.py.
pub fn golden(name: &str) -> HashMap<String, Tensor> {
    let tensors = Tensor::read_safetensors(golden_dir().join(name)).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device()))).collect()
}

pub fn ints(tensor: &Tensor) -> Vec<i64> {
    tensor.to_kind(tch::Kind::Int64).try_into().unwrap()
}

/// The token sequences of a golden file.
pub fn sequences(golden: &HashMap<String, Tensor>) -> Vec<Encoding> {
    let (ids, offsets) = (ints(&golden["input_ids"]), ints(&golden["cu_seqlens"]));
    let types = golden.get("token_type_ids").map(ints);
    offsets
        .windows(2)
        .map(|w| {
            let range = w[0] as usize..w[1] as usize;
            let first = types
                .as_ref()
                .map_or(range.len(), |t| t[range.clone()].iter().filter(|&&t| t == 0).count());
            Encoding { ids: ids[range].iter().map(|&id| id as u32).collect(), first }
        })
        .collect()
}

/// A supported architecture, by its `model_type`.
pub fn architecture(model_type: &str) -> Architecture {
    by_model_type(model_type).unwrap()
}

/// The random models of the golden files, one of each architecture.
pub const TINY: [&str; 3] = ["tiny-bert", "tiny-distilbert", "tiny-roberta"];

/// One of them, without dropout, with its golden head.
pub fn tiny(name: &str) -> TaskModel {
    let shared = Base::read(&golden_dir().join(name), None, device()).unwrap();
    let mut base = TaskModel::new(&shared, 3, Pooling::First, Some(NO_DROPOUT)).unwrap();
    let golden = golden(&format!("{name}.safetensors"));
    for name in base.new.clone() {
        base.set(&name, &golden[&name]).unwrap();
    }
    base
}

/// A task about single texts of at most 32 tokens, with these labels.
pub fn task(task_type: TaskType, labels: &[&str]) -> Task {
    Task {
        task_type,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        labels_declared: true,
        pairs: Some(false),
        max_length: 32,
        pooling: Pooling::First,
        long_texts: LongTexts::Cut,
        thresholds: vec![],
    }
}

/// No dropout, which is much for so small a model and so short a run.
pub const STILL: [&str; 6] = [
    "--set",
    "model.hidden_dropout_prob=0",
    "--set",
    "model.attention_probs_dropout_prob=0",
    "--set",
    "model.classifier_dropout=0",
];

/// The random BERT.
pub fn tiny_base() -> TaskModel {
    tiny("tiny-bert")
}

/// A folder with a copy of a random model as `base`, and data as `train.tsv` and `eval.tsv`.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self::of("tiny-bert")
    }

    /// The same with another of the random models.
    pub fn of(name: &str) -> Self {
        let scratch = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(scratch.path("base")).unwrap();
        for entry in std::fs::read_dir(golden_dir().join(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, scratch.path("base").join(path.file_name().unwrap())).unwrap();
        }
        scratch.write("train.tsv", reviews(96, 1));
        scratch.write("eval.tsv", reviews(32, 2));
        scratch.config("config.toml", "");
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A configuration of a short run, with `more` lines at its end, in the section `[training]`.
    pub fn config(&self, name: &str, more: &str) -> PathBuf {
        let text = format!(
            "[model]\nmodel_name_or_path = \"base\"\n[data]\ntrain = \"train.tsv\"\neval = \"eval.tsv\"\nmax_length = 32\n\
             [training]\noutput_dir = \"run\"\nper_device_train_batch_size = 8\nlearning_rate = 1e-2\nnum_train_epochs = 2\n\
             eval_steps = 8\nsave_steps = 8\nlogging_steps = 4\n{more}\n"
        );
        self.write(name, text)
    }

    pub fn train(&self, more: &[&str]) -> Output {
        let config = self.path("config.toml");
        let mut args = vec!["--config", config.to_str().unwrap()];
        args.extend(more);
        run(env!("CARGO_BIN_EXE_bitfit-train"), &args, self.folder.path(), "")
    }

    pub fn bitfit(&self, args: &[&str]) -> Output {
        self.bitfit_with(args, "")
    }

    pub fn bitfit_with(&self, args: &[&str], stdin: &str) -> Output {
        run(env!("CARGO_BIN_EXE_bitfit"), args, self.folder.path(), stdin)
    }

    /// [`Scratch::bitfit`], with the peak resident memory of the process in MiB.
    pub fn bitfit_measured(&self, args: &[&str]) -> (Output, u64) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
        measured(command.args(args).current_dir(self.folder.path()).env_remove("RUST_LOG"))
    }
}

/// What a command gave, and its peak resident memory in MiB.
///
/// Linux's /proc is asked every 2 ms while the process lives: getrusage's figure starts from the
/// parent's.
pub fn measured(command: &mut Command) -> (Output, u64) {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
    let mut peak_kib = 0;
    while !waiting.is_finished() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(kib.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    (waiting.join().unwrap(), peak_kib >> 10)
}

/// A TSV of short reviews that a model can tell apart.
pub fn reviews(rows: usize, seed: usize) -> String {
    let good = ["very good", "great", "loved"];
    let bad = ["very bad", "awful", "hated"];
    let nouns = ["film", "plot", "acting"];
    let mut text = String::from("text\tlabel\n");
    for i in 0..rows {
        let (words, label) = if i % 2 == 0 { (good, "positive") } else { (bad, "negative") };
        let noun = nouns[(i + seed) % 3];
        text += &format!(
            "the {noun} was {} and it was {}\t{label}\n",
            words[(i / 2) % 3],
            words[(i / 3 + seed) % 3]
        );
    }
    text
}

/// Writes a Parquet file of `texts` and the column `label`, whose Parquet type is `field`, with
/// `values`. Those of lists have `levels` of definition and repetition; `names` are the names of
/// the classes, as Hugging Face's `ClassLabel` has them.
pub fn write_parquet<T: DataType>(
    path: &Path,
    texts: &[&str],
    field: &str,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
    names: Option<&[&str]>,
) {
    let schema = format!("message rows {{ REQUIRED BYTE_ARRAY text (UTF8); {field} }}");
    let schema = parquet::schema::parser::parse_message_type(&schema).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, schema.into(), std::sync::Arc::default()).unwrap();
    if let Some(names) = names {
        let label = serde_json::json!({"names": names, "_type": "ClassLabel"});
        // A list has its element's feature.
        let label = match levels {
            Some(_) => serde_json::json!({"feature": label, "_type": "Sequence"}),
            None => label,
        };
        let features = serde_json::json!({"info": {"features": {"label": label}}}).to_string();
        writer.append_key_value_metadata(KeyValue::new("huggingface".into(), features));
    }
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts: Vec<_> = texts.iter().map(|&text| text.into()).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (definition, repetition) = levels.unzip();
    column.typed::<T>().write_batch(values, definition, repetition).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

fn run(program: &str, args: &[&str], folder: &Path, stdin: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that a command ended with `code` and that its message has every one of `parts`.
#[track_caller]
pub fn refused(output: &Output, code: i32, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
    assert!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
}

#[track_caller]
pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}
