//! Helpers of the fuzz targets. They write inputs to files, because bitfit's readers read files.

use bitfit::internal::data::{Columns, LabelColumns, Labels, Tokenizer};
use bitfit::internal::models::{ModelConfig, TaskType};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("bitfit-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
});

/// The configuration of a minimal BERT, whose tensors fit in an input of a few kB.
pub static LEAST: LazyLock<ModelConfig> = LazyLock::new(|| {
    let config = br#"{"model_type": "bert", "vocab_size": 5, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 3, "max_position_embeddings": 4}"#;
    file("config.json", config);
    ModelConfig::read(folder(), || Ok(vec![])).unwrap()
});

/// The folder of this process for input files. scripts/fuzz.sh puts it in memory and removes it.
pub fn folder() -> &'static Path {
    &FOLDER
}

/// Writes a file to [`folder`] and returns its path.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Returns the input with a correct checksum, if it has a place for one. Readers read nothing after
/// a wrong checksum.
pub fn sealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if let Some(checksum) = bitfit::internal::sealed::checksum(input) {
        let start = checksum.as_ptr() as usize - input.as_ptr() as usize;
        let place = start..start + checksum.len();
        bytes[place.clone()].fill(b'0');
        let digest = bitfit::internal::files::hex(&Sha256::digest(&bytes));
        bytes[place].copy_from_slice(digest.as_bytes());
    }
    bytes
}

/// The path of a small model among the golden files.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// Decodes columns from the bits of a byte. `@` sets no bit: one text, one label, a header. `A` has
/// no header, `B` has pairs, `D` skips bad rows, `H` is delimited by semicolons. `P` has several
/// labels in one column, `` ` `` has a column for each label, `p` has no labels.
pub fn columns(how: u8) -> Columns {
    let bit = |i: u8| how >> i & 1 == 1;
    let header = !bit(0);
    let name = |name: &str, number: &str| if header { name } else { number }.to_owned();
    Columns {
        text: name("text", "1"),
        text_pair: bit(1).then(|| name("text_pair", "3")),
        labels: match how >> 4 & 3 {
            0 => LabelColumns::One { name: name("label", "2"), separator: None },
            1 => LabelColumns::One { name: name("label", "2"), separator: Some(",".into()) },
            2 => LabelColumns::Each(vec![name("label", "2"), name("other", "3")]),
            _ => LabelColumns::None,
        },
        header,
        delimiter: bit(3).then_some(';'),
        skip_bad_rows: bit(2),
    }
}

/// Reads rows and, for each task, their labels and targets.
pub fn read_rows(path: &Path, columns: &Columns) {
    // libFuzzer's own hook would end the process at a panic of the Parquet library.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(bitfit::internal::data::silence_parquet_panics);
    let Ok(table) = bitfit::internal::data::read(path, columns) else { return };
    assert!(!table.rows.is_empty());
    for task in [TaskType::Classification, TaskType::MultiLabel, TaskType::Regression] {
        if let Ok(labels) = Labels::of(task, path, &table, columns.skip_bad_rows) {
            let _ = labels.targets(task, &table.rows);
        }
    }
}

/// Encodes a text, or a pair split at the first NUL, and checks the result.
pub fn encode(tokenizer: &Tokenizer, text: &str, max_length: usize) {
    let (text, pair) = match text.split_once('\0') {
        Some((text, pair)) => (text, Some(pair)),
        None => (text, None),
    };
    let encoded = tokenizer.encode(text, pair, max_length);
    assert!(encoded.ids.len() <= max_length && encoded.first <= encoded.ids.len());
    // Special tokens that the vocabulary lacks have ids beyond it.
    assert!(encoded.ids.iter().all(|&id| i64::from(id) < tokenizer.vocab_size() + 100_000));
    // Truncation keeps one end of the ids.
    let all = tokenizer.encode(text, None, usize::MAX).ids;
    let cut = tokenizer.encode(text, None, max_length).ids;
    let kept = all.len().min(max_length) - 1;
    if tokenizer.keeps_the_end() {
        assert_eq!(all[all.len() - kept..], cut[cut.len() - kept..]);
    } else {
        assert_eq!(all[..kept], cut[..kept]);
    }
}
