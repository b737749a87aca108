//! The report's files: `report.json`, and the pages and plots that are made from it.

use super::charts::{self, Charts};
use super::claims::claims;
use super::report::CompareReport;
use super::{html, markdown};
use crate::error::{Error, Result};
use crate::files;
use crate::lock::{self, Lock};
use std::path::{Path, PathBuf};

/// The names of a report's files and directories.
pub const WRITTEN: [&str; 4] = [PLOTS, JSON, MARKDOWN, HTML];

const PLOTS: &str = "plots";
const JSON: &str = "report.json";
const MARKDOWN: &str = "report.md";
const HTML: &str = "report.html";

/// Writes `report.json`, `report.md`, `report.html` and the plots into `dir`; returns the path of
/// `report.html`.
pub fn write(report: &CompareReport, dir: &Path) -> Result<PathBuf> {
    let charts = charts::all(report);
    write_plots(&charts, &dir.join(PLOTS))?;
    let json = serde_json::to_string_pretty(report).map_err(Error::bug)?;
    files::replace_with(&dir.join(JSON), (json + "\n").as_bytes())?;
    files::replace_with(&dir.join(MARKDOWN), markdown::page(report, &charts).as_bytes())?;
    let page = dir.join(HTML);
    files::replace_with(&page, html::page(report, &charts).as_bytes())?;
    Ok(page)
}

fn write_plots(charts: &Charts, dir: &Path) -> Result<()> {
    files::replace_dir(dir, |folder| {
        charts.overall.iter().chain(charts.tasks.iter().flatten()).try_for_each(|plot| {
            files::write(&folder.join(format!("{}.svg", plot.caption.name)), plot.file().as_bytes())
        })
    })
}

/// Reads a `report.json`. Its claims are made anew from its figures, in this version's words.
fn read(path: &Path) -> Result<CompareReport> {
    let mut report: CompareReport = serde_json::from_str(&files::read_text(path)?)
        .map_err(|e| Error::file(path, format!("not the report.json of a comparison: {e}")))?;
    report.claims = claims(&report.tasks, &report.claims_about);
    Ok(report)
}

/// Writes the files of the report `path`, a `report.json`, into `output`, by default its own
/// directory; returns the path of `report.html`.
///
/// Errs if `output` holds files under a report's names that are not those of `path`, unless
/// `overwrite` is set, or if a comparison has locked it.
pub fn render(path: &Path, output: Option<&Path>, overwrite: bool) -> Result<PathBuf> {
    let own = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = output.unwrap_or(own);
    let locked = dir.join(lock::FILE).exists();
    let _lock = locked.then(|| Lock::take(dir, "a comparison is writing to")).transpose()?;
    let report = read(path)?;
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let there: Vec<&str> = WRITTEN.into_iter().filter(|name| dir.join(name).exists()).collect();
    if !there.is_empty() && real(&dir.join(JSON)) != real(path) && !overwrite {
        let (dir, there) = (dir.display(), there.join(", "));
        return Err(Error::Usage(format!(
            "{dir} contains {there} of another report; replace these with --overwrite, or choose another directory with --output DIR"
        )));
    }
    files::create_dir(dir)?;
    write(&report, dir)
}
