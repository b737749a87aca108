//! What a task does with texts of more tokens than it reads at once.

use crate::nn::WindowPooling;
use serde::{Deserialize, Serialize};

/// The fewest tokens of a window: of a pair of RoBERTa's, four are special tokens.
const SHORTEST_WINDOW: usize = 8;

/// The most windows of a text.
pub const MOST_WINDOWS: u64 = 256;

/// How a task reads texts of more tokens than its `max_length`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize,
)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum LongTexts {
    /// Cut, as by transformers.
    #[default]
    Cut,
    /// The first and the last tokens, half each.
    HeadTail,
    /// In windows, whose logits are pooled.
    Windows(WindowSettings),
}

/// The windows in which a long text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// Tokens that a window begins after the one before; `None` for half of the tokens of a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_stride: Option<usize>,
    /// The most windows of a text. What follows is left out.
    pub most_windows: usize,
    /// How the windows' logits become the text's.
    pub window_pooling: WindowPooling,
}

/// How a task turns a text into token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    /// The most tokens that are read at once, special tokens included.
    pub max_length: usize,
    /// What is done with longer texts.
    pub long_texts: LongTexts,
}

impl LongTexts {
    /// Whether long texts are cut.
    pub fn is_cut(&self) -> bool {
        *self == Self::Cut
    }

    /// How the windows' logits become the text's.
    pub fn pooling(&self) -> WindowPooling {
        match self {
            Self::Windows(settings) => settings.window_pooling,
            Self::Cut | Self::HeadTail => WindowPooling::Mean,
        }
    }

    /// The most windows of a text.
    pub fn most_windows(&self) -> usize {
        match self {
            Self::Windows(settings) => settings.most_windows,
            Self::Cut | Self::HeadTail => 1,
        }
    }

    /// Checks the settings for texts of `max_length` tokens. The error is the key, what was found
    /// and what was expected.
    pub fn check(&self, max_length: usize) -> Result<(), (&'static str, usize, String)> {
        let Self::Windows(WindowSettings { window_stride, most_windows, .. }) = self else {
            return Ok(());
        };
        if max_length < SHORTEST_WINDOW {
            let expected = format!("{SHORTEST_WINDOW} or more with windows");
            return Err(("max_length", max_length, expected));
        }
        let most = usize::try_from(MOST_WINDOWS).unwrap_or(usize::MAX);
        if !(1..=most).contains(most_windows) {
            return Err(("most_windows", *most_windows, format!("1 to {most}")));
        }
        // Two special tokens are around a text.
        let tokens = max_length - 2;
        match window_stride {
            Some(stride) if !(1..=tokens).contains(stride) => {
                let expected = format!("1 to {tokens}, the tokens of a text that a window holds");
                Err(("window_stride", *stride, expected))
            }
            _ => Ok(()),
        }
    }
}

/// Formats what is read of a long text.
impl std::fmt::Display for LongTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cut => f.write_str("cut"),
            Self::HeadTail => f.write_str("the first and the last tokens"),
            Self::Windows(WindowSettings { window_stride, most_windows, window_pooling }) => {
                write!(f, "up to {most_windows} windows, each ")?;
                match window_stride {
                    Some(stride) => write!(f, "{stride} tokens")?,
                    None => f.write_str("half of its tokens")?,
                }
                let pooling = window_pooling.name();
                write!(f, " after the one before; the {pooling} of their logits")
            }
        }
    }
}
