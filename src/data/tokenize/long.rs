//! Texts of more tokens than their task reads at once: their first and last tokens, or windows.

use super::{Encoding, Tokenizer, longest_first};
use crate::models::{LongTexts, Reading, WindowSettings};
use crate::threads;

/// A text or a pair as its task reads it: in one window or, if it is long and its task reads
/// windows, in several.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Windows {
    /// The first window.
    pub first: Encoding,
    /// The other windows, in order.
    pub more: Vec<Encoding>,
    /// Whether tokens of the text are in no window.
    pub is_cut: bool,
}

/// The size of a text in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSize {
    /// Number of windows.
    pub windows: usize,
    /// Number of tokens of all windows.
    pub tokens: usize,
}

impl From<Encoding> for Windows {
    fn from(first: Encoding) -> Self {
        Self { first, more: vec![], is_cut: false }
    }
}

impl Windows {
    /// The windows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Encoding> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Number of windows.
    pub fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// Number of tokens of all windows.
    pub fn tokens(&self) -> usize {
        self.iter().map(|window| window.ids.len()).sum()
    }

    /// The size in a batch.
    pub fn size(&self) -> TextSize {
        TextSize { windows: self.count(), tokens: self.tokens() }
    }
}

/// What the windows of a text are cut from.
struct Windowed {
    /// The first text of a pair, as it is in every window.
    first: Option<Vec<u32>>,
    /// The tokens that are read in windows; those that no window holds may be missing.
    ids: Vec<u32>,
    /// Tokens of `ids` in a window.
    room: usize,
    /// Tokens of `ids` that a window begins after the one before.
    stride: usize,
    /// Whether tokens of `first` were cut off.
    is_cut: bool,
}

impl Windowed {
    /// Number of windows that hold all tokens.
    fn count(&self) -> usize {
        1 + self.ids.len().saturating_sub(self.room).div_ceil(self.stride)
    }
}

impl Tokenizer {
    /// Encodes a text, or a pair, as a task reads it.
    pub fn encode_as(&self, text: &str, pair: Option<&str>, reading: Reading) -> Windows {
        let length = reading.max_length;
        let (first, is_cut) = match reading.long_texts {
            LongTexts::Cut => self.encode_cut(text, pair, length),
            LongTexts::HeadTail => self.head_and_tail(text, pair, length),
            LongTexts::Windows(settings) => {
                let most = settings.most_windows.max(1);
                match self.windowed(text, pair, length, settings) {
                    Some(windowed) => return self.windows(&windowed, most),
                    None => self.encode_cut(text, pair, length),
                }
            }
        };
        Windows { is_cut, ..first.into() }
    }

    /// Encodes many texts on all cores, in order.
    pub fn encode_all<'a, T>(
        &self,
        texts: &'a [T],
        of: impl Fn(&'a T) -> (&'a str, Option<&'a str>) + Sync,
        reading: Reading,
    ) -> Vec<Windows>
    where
        T: Sync,
    {
        threads::map(texts, |item| {
            let (text, pair) = of(item);
            self.encode_as(text, pair, reading)
        })
    }

    /// The first and the last tokens of a text that is too long, half each; of an odd number, the
    /// first are one more. Of a pair, the first text is cut as [`Tokenizer::encode`] cuts it, and
    /// the second keeps its first and last tokens. Also returns whether tokens were left out.
    fn head_and_tail(&self, text: &str, pair: Option<&str>, max_length: usize) -> (Encoding, bool) {
        let room = self.room(pair.is_some(), max_length);
        let mut first = self.pieces(text, usize::MAX);
        let Some(pair) = pair else {
            let is_cut = first.len() > room;
            return (self.joined(ends(first, room), None), is_cut);
        };
        let second = self.pieces(pair, usize::MAX);
        let is_cut = first.len() + second.len() > room;
        let (a, b) = longest_first(first.len(), second.len(), room);
        self.cut(&mut first, a);
        (self.joined(first, Some(&ends(second, b))), is_cut)
    }

    /// What the windows of a text, or of the second text of a pair, are cut from. The first text of
    /// a pair has at most half of a window, or what the second leaves of one window. `None` if a
    /// window of `max_length` tokens holds only special tokens.
    fn windowed(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        settings: WindowSettings,
    ) -> Option<Windowed> {
        let whole = self.room(pair.is_some(), max_length);
        // One token more than all windows hold tells that the text is cut.
        let reach = max_length.saturating_mul(settings.most_windows.max(1)).saturating_add(1);
        let ids = self.pieces(pair.unwrap_or(text), reach);
        let (mut first, mut is_cut, mut room) = (None, false, whole);
        if pair.is_some() {
            let most = (whole / 2).max(whole.saturating_sub(ids.len()));
            let mut kept = self.kept(text, whole + 1);
            is_cut = kept.len() > most;
            self.cut(&mut kept, most);
            room = whole - kept.len().min(whole);
            first = Some(kept);
        }
        // The second text may be empty, beside a first that fills the window.
        let room = if ids.is_empty() { room.max(1) } else { room };
        let stride = settings.window_stride.unwrap_or(room / 2).clamp(1, room.max(1));
        (room > 0).then_some(Windowed { first, ids, room, stride, is_cut })
    }

    /// The windows, at most `most`.
    fn windows(&self, windowed: &Windowed, most: usize) -> Windows {
        let Windowed { first, ids, room, stride, .. } = windowed;
        let window = |number: usize| {
            let start = number * stride;
            let part = ids.get(start..(start + room).min(ids.len())).unwrap_or_default();
            match first {
                Some(first) => self.joined(first.clone(), Some(part)),
                None => self.joined(part.to_vec(), None),
            }
        };
        let more = (1..windowed.count().min(most)).map(window).collect();
        let is_cut = windowed.is_cut || windowed.count() > most;
        Windows { first: window(0), more, is_cut }
    }
}

/// The first and the last of `ids`, `most` together.
fn ends(mut ids: Vec<u32>, most: usize) -> Vec<u32> {
    let surplus = ids.len().saturating_sub(most);
    if surplus > 0 {
        let head = most.div_ceil(2);
        ids.drain(head..head + surplus);
    }
    ids
}
