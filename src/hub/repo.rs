//! Names of the Hub's repositories.

use crate::error::{Error, Result};

/// The type of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoType {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoType {
    /// The name of the kind in API paths and in the cache.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// The prefix of the kind in the URLs of pages and files.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
}

/// A repository of the Hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// The type of the repository.
    pub kind: RepoType,
    /// `name` or `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// The default revision.
pub const MAIN: &str = "main";

/// The branch where the Hub keeps a data set converted to Parquet, if its own files have another
/// format.
pub const CONVERTED: &str = "refs/convert/parquet";

impl Repo {
    /// A repository at `revision`, or else at the branch `main`.
    pub fn new(kind: RepoType, id: &str, revision: Option<&str>) -> Self {
        Self { kind, id: id.into(), revision: revision.unwrap_or(MAIN).into() }
    }

    /// Whether the revision is a commit, whose files never change.
    pub(super) fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// Errs if the id or the revision is malformed. Both become paths in the cache and must not
    /// lead out of it.
    pub(super) fn check(&self) -> Result<()> {
        let problem = match (is_id(&self.id), is_revision(&self.revision)) {
            (true, true) => return Ok(()),
            (true, false) => format!("revision: found {}, expected {REVISION}", self.revision),
            (false, _) => format!("found {}, expected NAME or OWNER/NAME", self.id),
        };
        Err(Error::Usage(problem))
    }

    pub(super) fn problem(&self, endpoint: &str, problem: impl Into<String>) -> Error {
        let address = format!("{endpoint}/{}{}", self.kind.prefix(), self.id);
        Error::Hub { address, problem: problem.into() }
    }
}

/// Whether a text can be a repository's id: `name` or `owner/name`, of letters, digits, `-`, `_`
/// and `.`.
pub fn is_id(text: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split('/').count() <= 2 && text.split('/').all(good)
}

/// A description of revisions for messages.
pub const REVISION: &str = "the name of a branch, a tag or a commit";

/// Whether a text can be a revision: parts separated by `/`, none of which leads out of the folder.
pub fn is_revision(text: &str) -> bool {
    is_plain(text)
}

/// Whether a relative path stays below the folder that it is joined to, and each part is short
/// enough for a file name.
pub fn is_plain(name: &str) -> bool {
    let plain =
        |part: &str| !["", ".", ".."].contains(&part) && !part.contains('\\') && part.len() <= 255;
    name.split('/').all(plain)
}
