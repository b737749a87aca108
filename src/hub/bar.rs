//! A bar for what is being downloaded.

use crate::escape;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A bar for each file in turn; none where stderr is no terminal.
pub struct Bar {
    bars: MultiProgress,
    file: Option<(String, ProgressBar)>,
}

impl Bar {
    /// Draws on `bars`.
    pub fn new(bars: MultiProgress) -> Self {
        Self { bars, file: None }
    }

    /// `done` bytes of `total` are there of the file `name`.
    pub fn hear(&mut self, name: &str, done: u64, total: Option<u64>) {
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

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.file.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
