//! Logs on stderr that do not tear the bars.

use indicatif::{MultiProgress, ProgressDrawTarget};
use std::io::Write;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging to stderr, as JSON for programs; `RUST_LOG` says how much. Bars drawn on what is returned and logs do not mix.
pub fn start(json: bool) -> MultiProgress {
    let bars = if json {
        MultiProgress::with_draw_target(ProgressDrawTarget::hidden())
    } else {
        MultiProgress::new()
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(AboveBars(bars.clone()))
        .with_target(false)
        .with_ansi(colours);
    // A second start, as in tests, leaves the first one's settings.
    let _ = if json { logs.json().try_init() } else { logs.without_time().try_init() };
    bars
}

#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
