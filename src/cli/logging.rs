//! Logs and progress bars on stderr. A failed write to stderr is ignored, because it must not end a
//! run.

use crate::escape;
use crate::files::say;
use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};
use std::io::{Result, Write};
use std::sync::Mutex;
use tracing::Level;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, registry};

/// Crates whose traces show what is sent over the network, tokens included.
const WIRE: [&str; 2] = ["ureq", "rustls"];

/// Starts logging to stderr, filtered by `RUST_LOG`; as JSON lines if `json` is set.
///
/// Returns the parent of all progress bars. Log lines are written above the bars that are added to
/// it.
pub fn start(json: bool) -> MultiProgress {
    let terminal = Term::stderr();
    let colours = terminal.is_term() && std::env::var_os("NO_COLOR").is_none();
    let bars = MultiProgress::with_draw_target(if json || !terminal.is_term() {
        ProgressDrawTarget::hidden()
    } else {
        let screen = Screen { terminal, unsent: Mutex::default() };
        ProgressDrawTarget::term_like_with_hz(Box::new(screen), 20)
    });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let shows_tokens = |target: &str| WIRE.iter().any(|name| target.starts_with(name));
    let no_tokens =
        filter_fn(move |about| *about.level() != Level::TRACE || !shows_tokens(about.target()));
    let logs = fmt::layer()
        .with_writer(AboveBars { bars: bars.clone(), json })
        .with_target(false)
        .with_ansi(colours)
        // Otherwise the layer reports a failed write on stderr itself, and panics if that fails.
        .log_internal_errors(false);
    let logs = match json {
        true => logs.json().boxed(),
        false => logs.without_time().fmt_fields(debug_fn(write_field)).boxed(),
    };
    // A second call, as in tests, keeps the settings of the first.
    let _ = registry().with(no_tokens).with(filter).with(logs).try_init();
    bars
}

/// Writes a field of an event for people. Lines after the first are indented, so that no line looks
/// like a new event.
fn write_field(
    out: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    let shown = escape::text(format_args!("{value:?}")).replace('\n', "\n     ");
    match field.name() {
        "message" => write!(out, "{shown}"),
        // The source location of an event from the crate `log`.
        name if name.starts_with("log.") => Ok(()),
        name => write!(out, " {name}={shown}"),
    }
}

/// Writes logs above the bars.
#[derive(Clone)]
struct AboveBars {
    bars: MultiProgress,
    json: bool,
}

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.bars.suspend(|| say(&if self.json { escape::json(&text).into() } else { text }));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The terminal that bars are drawn on. Its writes never fail, because indicatif panics when a
/// write to its own terminal fails.
#[derive(Debug)]
struct Screen {
    terminal: Term,
    /// Text that the next flush writes in one call, so that bars do not flicker.
    unsent: Mutex<String>,
}

impl Screen {
    fn add(&self, text: &str) -> Result<()> {
        if let Ok(mut unsent) = self.unsent.lock() {
            unsent.push_str(text);
        }
        Ok(())
    }

    /// Moves the cursor by `n` cells; `letter` is ECMA-48's final byte for the direction.
    fn move_cursor(&self, n: usize, letter: char) -> Result<()> {
        if n == 0 { Ok(()) } else { self.add(&format!("\x1b[{n}{letter}")) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.terminal.size().1
    }

    fn height(&self) -> u16 {
        self.terminal.size().0
    }

    fn move_cursor_up(&self, n: usize) -> Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> Result<()> {
        if let Ok(mut unsent) = self.unsent.lock() {
            say(&std::mem::take(&mut *unsent));
        }
        Ok(())
    }
}
