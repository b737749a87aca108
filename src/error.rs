//! The library's errors. Each variant names the file, key or tensor, what was found and what was
//! expected.

use crate::escape;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The result of every fallible function of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this library. `Display` writes the whole message for people, with the text that it
/// quotes from files escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file that is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{}: {}", line(path.display()), text(message))]
    Toml {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong, with line and column if known.
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
        /// The line, counted from 1; `None` if the problem is not in one line.
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
    /// A file with unexpected contents: truncated, of another format, or of another base.
    #[error("{}: {}", line(path.display()), line(problem))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A failed request to the Hugging Face Hub, or a repository with unexpected contents.
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
    /// The machine or its GPU ran out of memory.
    #[error(
        "out of memory: {}; a smaller batch (training.per_device_train_batch_size with training.gradient_accumulation_steps, \
         training.per_device_eval_batch_size, --batch-size) or a smaller data.max_length needs less memory",
        line(.0)
    )]
    OutOfMemory(String),
    /// A loss or a gradient that is NaN or infinite.
    #[error(
        "{what} at step {step}{}; this step was discarded; {}",
        rows.as_ref().map(|rows| format!(" (rows: {})", line(rows))).unwrap_or_default(),
        line(advice)
    )]
    Diverged {
        /// What is NaN or infinite, such as `the loss is NaN`.
        what: String,
        /// The step, counted from 1.
        step: u64,
        /// The source of the step's rows; `None` for the loss of an evaluation.
        rows: Option<String>,
        /// What may help.
        advice: String,
    },
    /// An [`Engine`](crate::Engine) that takes no more rows for now.
    #[error("{rows} rows wait already, which takes about {seconds:.1} s; ask again later")]
    Busy {
        /// The rows that wait.
        rows: usize,
        /// The expected time until they are computed.
        seconds: f64,
    },
    /// A call that an [`Engine`](crate::Engine) could not answer.
    #[error("{}", line(.0))]
    Unanswered(String),
    /// Values that are NaN or infinite, named by what contains them.
    #[error(
        "{} contains NaN or infinity; a lower training.learning_rate usually helps",
        line(.0)
    )]
    NotFinite(String),
    /// A task's loss over labelled rows that is NaN or infinite.
    #[error(
        "the task's loss on these rows is {0}; check the weights of the base and of the task (bitfit inspect) and --precision (fp16 has \
         no numbers above 65504), and check a regression for extreme labels"
    )]
    NoLoss(f64),
    /// A directory that this process had locked, and that was moved away, removed or replaced.
    #[error("{}: {} while this run wrote to it", line(dir.display()), moved(now.as_deref()))]
    Moved {
        /// The path at which the directory was locked.
        dir: PathBuf,
        /// The directory's present path; `None` if unknown.
        now: Option<PathBuf>,
    },
    /// Something that needs a feature of the crate which this build was made without.
    #[error(
        "{}: this build of bitfit lacks the feature `{feature}`; build it with that, or give {instead}",
        line(what)
    )]
    Lacks {
        /// The file, or the id on the Hub.
        what: String,
        /// The feature's name.
        feature: &'static str,
        /// What works without the feature.
        instead: &'static str,
    },
    /// Arguments that do not fit together.
    #[error("{}", escape::text(.0))]
    Usage(String),
    /// Several runs of which some failed; the others are done.
    #[error("{}", line(.0))]
    Failed(String),
    /// A run that a signal ended early. The message says what was saved.
    #[error("interrupted; {}", line(.0))]
    Interrupted(String),
    /// An error that ended a run early, with what is kept of the run.
    #[error("{problem}\n{}", line(kept))]
    Ended {
        /// The error that ended the run.
        problem: Box<Error>,
        /// What is kept of the run, and how to resume it.
        kept: String,
    },
    /// A state that should be impossible: a bug in this library.
    #[error("{}. This is a bug.", line(.0))]
    Bug(String),
}

/// The maximum number of characters of each text that a message quotes. Names and values in a file
/// may have millions.
const MOST: usize = 1_500;

/// Escapes `shown` on one line, and leaves out its middle if it is longer than [`MOST`].
fn line(shown: impl Display) -> String {
    short(escape::line(shown))
}

/// Escapes `shown`, and leaves out the middle of each line that is longer than [`MOST`].
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
    format!("{begin} [{} characters left out] {end}", count - begin.chars().count() - MOST / 2)
}

/// Describes what happened to the directory of an [`Error::Moved`].
fn moved(now: Option<&Path>) -> String {
    match now {
        Some(now) => format!("the directory was moved to {}", line(now.display())),
        None => "the directory, or the file .lock in it, was removed or replaced".into(),
    }
}

impl Error {
    /// Makes a function for `map_err` that returns an [`Error::Io`] for `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// An [`Error::File`] for `path`.
    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Error {
        Error::File { path: path.to_owned(), problem: problem.into() }
    }

    /// An [`Error::Data`] for `path`, at `line` if it is known.
    pub(crate) fn data(
        path: &Path,
        line: impl Into<Option<usize>>,
        problem: impl Into<String>,
    ) -> Error {
        Error::Data { path: path.to_owned(), line: line.into(), problem: problem.into() }
    }

    /// An [`Error::OutOfMemory`] or an [`Error::Torch`] from libtorch's `message` about `action`.
    ///
    /// Only the first line of `message` is kept, because some 25 lines of C++ backtrace follow it.
    pub(crate) fn torch(action: &str, message: &str) -> Error {
        let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown error");
        // In this order: CUDA's allocator, cuBLAS, the CPU's allocator (two), C++'s `new`, and
        // oneDNN when it cannot allocate memory for its code.
        let memory = [
            "out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
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

    /// An [`Error::Bug`] for an error that cannot happen.
    pub(crate) fn bug(error: impl Display) -> Error {
        Error::Bug(error.to_string())
    }

    /// The process's exit code: 1 for a failure, 2 for an error in the arguments or the
    /// configuration, 130 for an interruption.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Toml { .. } | Error::Config { .. } | Error::Usage(_) | Error::Lacks { .. } => 2,
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
