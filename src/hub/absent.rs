//! The Hub of a build without the feature `hub`: names the feature.

use super::repo::Repo;
use super::snapshot::{DatasetSplit, DownloadProgress, HubSnapshot};
use crate::error::{Error, Result};

/// The Hub, which this build does not reach.
pub struct Hub;

impl Hub {
    /// Makes a `Hub` whose methods err.
    pub fn from_env() -> Result<Self> {
        Ok(Self)
    }

    /// Errs, and names the feature.
    pub fn model(
        &self,
        repo: &Repo,
        _: Option<&str>,
        _: &mut DownloadProgress<'_>,
    ) -> Result<HubSnapshot> {
        Err(lacks(repo, "a model's directory"))
    }

    /// Errs, and names the feature.
    pub fn dataset(
        &self,
        repo: &Repo,
        _: Option<&str>,
        _: Option<&str>,
        _: &mut DownloadProgress<'_>,
    ) -> Result<DatasetSplit> {
        Err(lacks(repo, "a file or a folder of labelled texts"))
    }
}

fn lacks(repo: &Repo, instead: &'static str) -> Error {
    let what = format!("{}, a {} of the Hugging Face Hub", repo.id, repo.kind.name());
    Error::Lacks { what, feature: "hub", instead }
}
