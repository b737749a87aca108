//! Tables as Parquet in a build without the feature `parquet`, which writes none.

use super::plan::Table;
use crate::error::{Error, Result};
use crate::files::FileWriter;
use crate::predict::{Input, Prediction};
use std::marker::PhantomData;
use std::path::Path;

/// Writes a table as Parquet, of which there are none.
pub struct ParquetWriter<'a>(std::convert::Infallible, PhantomData<&'a Path>);

impl<'a> ParquetWriter<'a> {
    /// Errs, and names the feature.
    pub fn new(_: Table, _: &'a mut FileWriter, path: &'a Path) -> Result<Self> {
        let what = path.display().to_string();
        Err(Error::Lacks { what, feature: "parquet", instead: "--output with a .csv or .tsv" })
    }

    /// Adds the row of the next input.
    pub fn add(&mut self, _: &Input, _: &[Prediction]) -> Result<()> {
        match self.0 {}
    }

    /// Writes what is not written yet.
    pub fn finish(self) -> Result<()> {
        match self.0 {}
    }
}
