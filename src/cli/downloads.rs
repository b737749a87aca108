//! A progress bar for downloads.

use crate::escape;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows a bar for one file at a time. `bars` draws nothing if stderr is not a terminal.
pub struct DownloadBar {
    bars: MultiProgress,
    file: Option<(String, ProgressBar)>,
}

impl DownloadBar {
    /// Creates a `DownloadBar` that draws on `bars`. Nothing is shown before the first file.
    pub fn new(bars: MultiProgress) -> Self {
        Self { bars, file: None }
    }

    /// Shows that `done` of `total` bytes of the file `name` are downloaded. Replaces the bar of
    /// another file.
    pub fn update(&mut self, name: &str, done: u64, total: Option<u64>) {
        if self.file.as_ref().is_none_or(|(file, _)| file != name) {
            self.clear();
            let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} (left {eta})";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(total.unwrap_or_default())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message(escape::line(name));
            self.file = Some((name.to_owned(), self.bars.add(bar)));
        }
        if let Some((_, bar)) = &self.file {
            bar.set_position(done);
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.file.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for DownloadBar {
    fn drop(&mut self) {
        self.clear();
    }
}
