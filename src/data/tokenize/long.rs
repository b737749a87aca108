//! Texts of more tokens than their task reads at once: their first and last tokens, or windows.

use super::{Encoding, Tokenizer, longest_first};
use crate::models::{LongTexts, Reading, WindowSettings};
use crate::threads;

/// A text or a pair as its task reads it: in one window or, if it is long and its task reads
/// windows, in several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// The first window.
    pub first: Encoding,
    /// The other windows, in order.
    pub more: Vec<Encoding>,
}

/// The size of a text in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSize {
    /// Number of windows.
    pub windows: usize,
    /// Number of tokens of all windows.
    pub tokens: usize,
}

/// A text of more tokens than its task reads at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongText {
    /// Number of tokens, special tokens included.
    pub tokens: usize,
    /// Number of windows that were left out.
    pub left_out: usize,
}

impl From<Encoding> for Windows {
    fn from(first: Encoding) -> Self {
        Self { first, more: vec![] }
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
        match reading.long_texts {
            LongTexts::Cut => self.encode(text, pair, length).into(),
            LongTexts::HeadTail => self.head_and_tail(text, pair, length).into(),
            LongTexts::Windows(settings) => {
                let most = settings.most_windows.max(1);
                let reach = length.saturating_mul(most).saturating_add(1);
                match self.windowed(text, pair, length, settings, reach) {
                    Some(windowed) => self.windows(&windowed, most),
                    None => self.encode(text, pair, length).into(),
                }
            }
        }
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

    /// Whether `windows`, which are those of a text or a pair, lack some of its tokens.
    pub fn is_cut(
        &self,
        text: &str,
        pair: Option<&str>,
        reading: Reading,
        windows: &Windows,
    ) -> bool {
        let length = reading.max_length;
        if !is_full(windows, length) {
            return false;
        }
        match reading.long_texts {
            LongTexts::Cut | LongTexts::HeadTail => {
                self.encode(text, pair, length + 1).ids.len() > length
            }
            LongTexts::Windows(settings) => {
                let most = settings.most_windows.max(1);
                let reach = length.saturating_mul(most).saturating_add(1);
                let windowed = self.windowed(text, pair, length, settings, reach);
                windowed.is_none_or(|windowed| windowed.is_cut || windowed.count() > most)
            }
        }
    }

    /// The length of a text or a pair that has more tokens than are read at once; `None` for any
    /// other. `windows` are those of the text.
    pub fn long_text(
        &self,
        text: &str,
        pair: Option<&str>,
        reading: Reading,
        windows: &Windows,
    ) -> Option<LongText> {
        let length = reading.max_length;
        if !is_full(windows, length) {
            return None;
        }
        let tokens = self.encode(text, pair, usize::MAX).ids.len();
        let all = match reading.long_texts {
            LongTexts::Cut | LongTexts::HeadTail => None,
            LongTexts::Windows(settings) => self.windowed(text, pair, length, settings, usize::MAX),
        };
        let count = all.map_or(1, |windowed| windowed.count());
        let left_out = count.saturating_sub(windows.count());
        (tokens > length).then_some(LongText { tokens, left_out })
    }

    /// The first and the last tokens of a text that is too long, half each; of an odd number, the
    /// first are one more. Of a pair, the first text is cut as [`Tokenizer::encode`] cuts it, and
    /// the second keeps its first and last tokens.
    fn head_and_tail(&self, text: &str, pair: Option<&str>, max_length: usize) -> Encoding {
        let room = self.room(pair.is_some(), max_length);
        let mut first = self.pieces(text, usize::MAX);
        let Some(pair) = pair else { return self.joined(ends(first, room), None) };
        let second = self.pieces(pair, usize::MAX);
        let (a, b) = longest_first(first.len(), second.len(), room);
        self.cut(&mut first, a);
        self.joined(first, Some(&ends(second, b)))
    }

    /// What the windows of a text, or of the second text of a pair, are cut from: at most `reach`
    /// tokens. The first text of a pair has at most half of a window, or what the second leaves of
    /// one window. `None` if a window of `max_length` tokens holds only special tokens.
    fn windowed(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        settings: WindowSettings,
        reach: usize,
    ) -> Option<Windowed> {
        let whole = self.room(pair.is_some(), max_length);
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
        Windows { first: window(0), more }
    }
}

/// Whether a text may have more tokens than `windows`, each of at most `length` tokens.
fn is_full(windows: &Windows, length: usize) -> bool {
    !windows.more.is_empty() || windows.first.ids.len() >= length
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
