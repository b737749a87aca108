//! What is said of the texts that have more tokens than the task reads at once.

use crate::data::{Example, LongText, Row, Tokenizer};
use crate::models::{LongTexts, Reading};
use crate::numbers::thousands;
use crate::threads;

/// Logs how many of `rows` have more tokens than `reading` takes at once, and warns of windows that
/// are left out. `examples` are the same rows as token ids, and `what` is their data set.
pub fn say(
    what: &str,
    tokenizer: &Tokenizer,
    reading: Reading,
    rows: &[Row],
    examples: &[Example],
) {
    let both: Vec<(&Row, &Example)> = rows.iter().zip(examples).collect();
    let long = threads::map(&both, |(row, example)| {
        tokenizer.long_text(&row.text, row.text_pair.as_deref(), reading, &example.tokens)
    });
    let long: Vec<LongText> = long.into_iter().flatten().collect();
    let Some(longest) = long.iter().map(|text| text.tokens).max() else { return };
    let count = |number: usize| thousands(number as u64);
    let what = format!("{} of {} {what} texts", count(long.len()), count(rows.len()));
    let (length, longest) = (reading.max_length, count(longest));
    let longer = format!("longer than max_length = {length}");
    let left_out: Vec<&LongText> = long.iter().filter(|text| text.left_out > 0).collect();
    let how = match reading.long_texts {
        LongTexts::Cut => {
            tracing::info!(
                "{what} are {longer} and are cut; the longest has {longest} tokens \
                 (data.long_texts = \"windows\" reads all)"
            );
            return;
        }
        LongTexts::HeadTail => "are read by their first and last tokens",
        LongTexts::Windows(_) => "are read in windows",
    };
    tracing::info!("{what} are {longer} and {how}; the longest has {longest} tokens");
    if !left_out.is_empty() {
        let windows = count(left_out.iter().map(|text| text.left_out).sum());
        let (texts, most) = (count(left_out.len()), reading.long_texts.most_windows());
        tracing::warn!(
            "{windows} windows of {texts} of these texts are left out (data.most_windows = {most})"
        );
    }
}
