//! What can go wrong. Each variant names the file, key or tensor, what was found and what was expected.

use crate::escape;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What every fallible function of this library returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong; `Display` is the whole message that people read, what it quotes of files escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file that is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{}: {}", line(path.display()), text(message))]
    Toml {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong, with line and column where they are known.
        message: String,
    },
    /// A value that is well-formed but not allowed.
    #[error("{}: {}: found {}, expected {}", line(path.display()), line(key), line(found), line(expected))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key, such as `training.learning_rate`.
        key: String,
        /// The value found.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {}", line(path.display()), line(source))]
    Io {
        /// `read`, `write`, `create`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A data file with something wrong in it.
    #[error("{}{}: {}", self::line(path.display()), line.map(|l| format!(":{l}")).unwrap_or_default(), self::line(problem))]
    Data {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1, where there is one.
        line: Option<usize>,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A tensor that is missing, unexpected, or of the wrong shape or dtype.
    #[error("{}: tensor {}: expected {}, found {}", line(path.display()), line(tensor), line(expected), line(found))]
    Tensor {
        /// The weight file or delta.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the model needs.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A file that is not what it should be: truncated, of another format, of another base.
    #[error("{}: {}", line(path.display()), line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The Hugging Face Hub, or what it has, is not as it should be.
    #[error("{}: {}", line(address), line(problem))]
    Hub {
        /// The repository's page.
        address: String,
        /// What is wrong and what can be done.
        problem: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}: {}", line(action), line(message))]
    Torch {
        /// What was being done.
        action: String,
        /// The first line of libtorch's message.
        message: String,
    },
    /// Memory, of the machine or of its GPU, did not suffice.
    #[error(
        "out of memory: {}; a smaller batch (training.per_device_train_batch_size with training.gradient_accumulation_steps, \
         training.per_device_eval_batch_size, --batch-size) or a smaller data.max_length needs less",
        line(.0)
    )]
    OutOfMemory(String),
    /// A loss or a gradient that is no number.
    #[error(
        "{what} at step {step}{}; nothing of that step is kept; {}",
        rows.as_ref().map(|rows| format!(", whose rows are {}", line(rows))).unwrap_or_default(),
        line(advice)
    )]
    Diverged {
        /// What is no number: `the loss is NaN`.
        what: String,
        /// The step, counted from 1.
        step: u64,
        /// Where its rows come from; none after an evaluation.
        rows: Option<String>,
        /// What may help.
        advice: String,
    },
    /// Numbers that are infinite or none.
    #[error(
        "{} holds numbers that are infinite or none; a lower training.learning_rate usually helps",
        line(.0)
    )]
    NotFinite(String),
    /// A task's loss over labelled rows that is no finite number.
    #[error(
        "the loss of the task on these rows is {0}; look at the weights of the base and of the task (bitfit inspect), at --precision \
         (fp16 knows no numbers above 65504) and, where a number is predicted, at labels of extreme size"
    )]
    NoLoss(f64),
    /// A directory that this process had to itself, and that another is in the place of.
    #[error("{}: {} while this run wrote to it", line(dir.display()), moved(now.as_deref()))]
    Moved {
        /// Where it was.
        dir: PathBuf,
        /// Where it is, where that is known.
        now: Option<PathBuf>,
    },
    /// Arguments that do not fit together.
    #[error("{}", escape::text(.0))]
    Usage(String),
    /// Some of several runs failed; the others are done.
    #[error("{}", line(.0))]
    Failed(String),
    /// A signal asked the run to end, and what is best so far was saved.
    #[error("interrupted; {}", line(.0))]
    Interrupted(String),
    /// A run that ended early, and what of it is kept.
    #[error("{problem}\n{}", line(kept))]
    Ended {
        /// Why.
        problem: Box<Error>,
        /// What is kept, and how to go on from it.
        kept: String,
    },
    /// Something that cannot happen.
    #[error("{}. This is a bug.", line(.0))]
    Bug(String),
}

/// Letters of each part of a message, unless they are our own: a file's names and values may have millions.
const MOST: usize = 1_500;

/// `shown` escaped on one line, its middle left out where it is long.
fn line(shown: impl Display) -> String {
    short(escape::line(shown))
}

/// `shown` escaped, the middle of each long line left out.
fn text(shown: impl Display) -> String {
    escape::text(shown).split('\n').map(|line| short(line.into())).collect::<Vec<_>>().join("\n")
}

fn short(text: String) -> String {
    let count = text.chars().count();
    if count <= MOST {
        return text;
    }
    let begin: String = text.chars().take(MOST / 2).collect();
    let end: String = text.chars().skip(count - MOST / 2).collect();
    format!("{begin} [{} letters left out] {end}", count - begin.chars().count() - MOST / 2)
}

/// What became of the directory of an [`Error::Moved`].
fn moved(now: Option<&Path>) -> String {
    match now {
        Some(now) => format!("the directory was moved to {}", line(now.display())),
        None => "the directory, or the file .lock in it, was removed or replaced".into(),
    }
}

impl Error {
    /// An [`Error::Io`] for `path`, to be used in `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: &Path, problem: impl Into<String>) -> Error {
        Error::File { path: path.to_owned(), problem: problem.into() }
    }

    /// An [`Error::Data`] for `path`, at `line` where one is known.
    pub fn data(path: &Path, line: impl Into<Option<usize>>, problem: impl Into<String>) -> Error {
        Error::Data { path: path.to_owned(), line: line.into(), problem: problem.into() }
    }

    /// What libtorch said while doing `action`. Its messages carry some 25 lines of C++ backtrace: the first line is what people need.
    pub fn torch(action: &str, message: &str) -> Error {
        let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown error");
        // CUDA's allocator says the first, the CPU's the next two, C++ the fourth, oneDNN the last where it finds no room for its code.
        let memory = [
            "out of memory",
            "can't allocate memory",
            "not enough memory",
            "bad_alloc",
            "could not create a primitive",
        ];
        if memory.iter().any(|words| message.contains(words)) {
            return Error::OutOfMemory(line.to_owned());
        }
        Error::Torch { action: action.to_owned(), message: line.to_owned() }
    }

    /// The process's exit code: 1 the run failed, 2 usage or configuration, 130 interrupted after saving.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Toml { .. } | Error::Config { .. } | Error::Usage(_) => 2,
            Error::Interrupted(_) => 130,
            Error::Ended { problem, .. } => problem.exit_code(),
            _ => 1,
        }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Error::torch("operation failed", &error.to_string())
    }
}
