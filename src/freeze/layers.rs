//! Layers by number.

/// A set of layers by number, from 0: `4-5`, `0,2,6-` or `-3`. Ranges include both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Vec<(usize, Option<usize>)>);

impl Layers {
    /// The syntax that [`Layers::parse`] accepts, for error messages.
    pub const SYNTAX: &str = "layers by number, from 0, such as \"4-5\", \"0,2\", \"6-\" (to the last) or \"-3\" (from the first)";

    /// Parses a comma-separated list of numbers and ranges. Returns `None` if `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let part = |part: &str| match part.trim().split_once('-') {
            None => number(part).map(|n| (n, Some(n))),
            Some(("", "")) => None,
            Some(("", last)) => number(last).map(|last| (0, Some(last))),
            Some((first, "")) => number(first).map(|first| (first, None)),
            Some((first, last)) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Some((first, Some(last))),
                _ => None,
            },
        };
        text.split(',').map(part).collect::<Option<_>>().map(Self)
    }

    /// Whether the set contains `layer`.
    pub fn contains(&self, layer: usize) -> bool {
        self.0.iter().any(|&(first, last)| layer >= first && last.is_none_or(|last| layer <= last))
    }

    /// The highest layer number in the text. An open range such as `6-` counts with its first
    /// number.
    pub fn highest(&self) -> usize {
        self.0.iter().map(|&(first, last)| last.unwrap_or(first)).max().unwrap_or(0)
    }
}
