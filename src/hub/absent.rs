//! The Hub of a build without the feature `hub`: names the feature.

use super::{Progress, Repo, Snapshot, Split};
use crate::error::{Error, Result};

/// The Hub, which this build does not reach.
pub struct Hub;

impl Hub {
    /// Makes a `Hub` whose methods err.
    pub fn from_env() -> Result<Self> {
        Ok(Self)
    }

    /// Errs, and names the feature.
    pub fn model(&self, repo: &Repo, _: Option<&str>, _: &mut Progress<'_>) -> Result<Snapshot> {
        Err(lacks(repo, "a model's directory"))
    }

    /// Errs, and names the feature.
    pub fn dataset(
        &self,
        repo: &Repo,
        _: Option<&str>,
        _: Option<&str>,
        _: &mut Progress<'_>,
    ) -> Result<Split> {
        Err(lacks(repo, "a file or a folder of labelled texts"))
    }
}

fn lacks(repo: &Repo, instead: &'static str) -> Error {
    let what = format!("{}, a {} of the Hugging Face Hub", repo.id, repo.kind.name());
    Error::Lacks { what, feature: "hub", instead }
}
