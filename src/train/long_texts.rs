//! What is said of the texts that have more tokens than the task reads at once.

use crate::data::{Example, Row, Tokenizer};
use crate::models::{LongTexts, Reading};
use crate::numbers::thousands;

/// Logs how many of `rows` have more tokens than `reading` takes at once, and warns of windows that
/// are left out. `examples` are the same rows as token ids, and `what` is their data set.
pub fn say(
    what: &str,
    tokenizer: &Tokenizer,
    reading: Reading,
    rows: &[Row],
    examples: &[Example],
) {
    let is_long = |example: &Example| example.tokens.is_cut || example.tokens.count() > 1;
    let long = rows.iter().zip(examples).filter(|(_, example)| is_long(example));
    let bytes = |row: &Row| row.text.len() + row.text_pair.as_ref().map_or(0, String::len);
    let Some((longest, _)) = long.clone().max_by_key(|(row, _)| bytes(row)) else { return };
    // Only this text is tokenized whole. A text may be far longer than what is read of it.
    let all = tokenizer.encode(&longest.text, longest.text_pair.as_deref(), usize::MAX);
    let count = |number: usize| thousands(number as u64);
    let what = format!("{} of {} {what} texts", count(long.count()), count(rows.len()));
    let (length, longest) = (reading.max_length, count(all.ids.len()));
    let longer = format!("longer than max_length = {length}");
    let (how, advice) = match reading.long_texts {
        LongTexts::Cut => ("are cut", " (data.long_texts = \"windows\" reads all)"),
        LongTexts::HeadTail => ("are read by their first and last tokens", ""),
        LongTexts::Windows(_) => ("are read in windows", ""),
    };
    tracing::info!("{what} are {longer} and {how}; the longest has {longest} tokens{advice}");
    let cut = examples.iter().filter(|example| example.tokens.is_cut).count();
    if let LongTexts::Windows(settings) = reading.long_texts
        && cut > 0
    {
        let (cut, most) = (count(cut), settings.most_windows);
        tracing::warn!(
            "{cut} of these texts are not read whole: at most data.most_windows = {most} windows \
             are, and half of a window of the first text of a pair"
        );
    }
}
