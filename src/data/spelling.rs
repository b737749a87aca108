//! Spellings of labels: numbers, missing values, lists, and texts that only look alike.

use crate::escape;
use unicode_normalization_alignments::UnicodeNormalization;

/// A decimal number of any length. `1`, `1.0`, `01`, `+1` and `1e0` are equal; two different
/// integers never are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    negative: bool,
    /// The digits without zeros at either end.
    digits: String,
    /// The power of ten that the digits are multiplied by.
    exponent: i64,
}

impl Number {
    /// Parses `text`. Returns `None` if it is not a number (NaN and infinity are not), or if its
    /// exponent has more than four digits.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let exponent = exponent.parse::<i64>().ok().filter(|e| e.unsigned_abs() < 10_000)?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let kept = all.trim_end_matches('0');
        let digits = kept.trim_start_matches('0');
        let zeros = all.len() as i64 - kept.len() as i64;
        let zero = digits.is_empty();
        Some(Self {
            negative: text.starts_with('-') && !zero,
            digits: digits.to_owned(),
            exponent: if zero { 0 } else { exponent + zeros - fraction.len() as i64 },
        })
    }

    /// Whether the number has no fraction.
    pub fn is_whole(&self) -> bool {
        self.exponent >= 0
    }

    /// The number as a class number; `None` if it is negative, has a fraction or is too large.
    pub fn class(&self) -> Option<usize> {
        let zeros = usize::try_from(self.exponent).ok().filter(|&zeros| zeros < 20)?;
        let digits = format!("0{}{}", self.digits, "0".repeat(zeros));
        if self.negative { None } else { digits.parse().ok() }
    }
}

/// Parses `text` as 0 or 1, which may be spelled `1.0` or `true`; `None` if it is neither.
pub fn flag(text: &str) -> Option<bool> {
    match text.trim() {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        text => match Number::of(text)?.class()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
    }
}

/// Parses a list of 0 and 1 that has one of them twice, so that it cannot list names of labels;
/// `None` for any other list.
pub fn flags(list: &[String]) -> Option<Vec<bool>> {
    let flags = list.iter().map(|text| flag(text)).collect::<Option<Vec<bool>>>()?;
    let count = |value| flags.iter().filter(|&&flag| flag == value).count();
    (count(true) > 1 || count(false) > 1).then_some(flags)
}

/// Whether `text` is what programs write for a missing value: pandas (the defaults of `read_csv`),
/// R, SQL, spreadsheets.
///
/// Words such as `none` and `?` are also plausible names of classes: they count as missing only
/// `among_numbers`, where the other labels are numbers.
pub fn is_missing(text: &str, among_numbers: bool) -> bool {
    let (text, small) = (text.trim(), folded(text));
    let in_any_case = [
        "", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "-nan", "+nan",
        "nan", "<na>", "n/a", "null", "<null>", "(null)", "[null]", "\\n", "#null!", "#value!",
        "#ref!", "#div/0!", "#num!", "#name?",
    ];
    let word = ["none", "<none>", "na", "nil", "undefined", "inf", "+inf", "-inf", "?", "-", "."];
    in_any_case.contains(&small.as_str())
        || ["None", "NA", "NaT"].contains(&text)
        || (among_numbers && word.contains(&small.as_str()))
}

/// Whether `text` is a list as Python, NumPy, JSON or YAML print one: `[0, 1]`, `[0 1]`,
/// `['a', 'b']`, `[a, b]`, `(0, 1)`.
pub fn is_printed_list(text: &str) -> bool {
    let inner = |open, close| text.trim().strip_prefix(open)?.strip_suffix(close).map(str::trim);
    let brackets = inner('[', ']');
    let Some(inner) = brackets.or_else(|| inner('(', ')')).or_else(|| inner('{', '}')) else {
        return false;
    };
    let quoted =
        ['"', '\''].iter().any(|&quote| inner.starts_with(quote) && inner.ends_with(quote));
    let mut parts = inner.split([',', ' ']).filter(|part| !part.is_empty());
    let numbers = parts.all(|part| flag(part).is_some() || Number::of(part).is_some());
    let several = |inner: &str| inner.contains([',', ';', '|']) && !inner.contains(['[', ']']);
    let names = brackets.is_some_and(several);
    quoted || names || (numbers && (brackets.is_some() || inner.is_empty() || inner.contains(',')))
}

/// Whether `text` is several 0 or 1 with a separator between them: `0 1 1`. Commas must separate
/// three or more, because `0,1` may be a decimal number.
pub fn is_row_of_flags(text: &str) -> bool {
    let pieces = |(between, least): (char, usize)| {
        text.split(between).count() >= least && text.split(between).all(|x| flag(x).is_some())
    };
    [(',', 3), (';', 2), ('|', 2), (' ', 2), ('\t', 2)].into_iter().any(pieces)
}

/// Rewrites a number with a decimal comma: `0,5` as `0.5`. Returns `None` if `text` is not one.
fn decimal_comma(text: &str) -> Option<String> {
    let (whole, fraction) = text.trim().split_once(',')?;
    let number = format!("{}.{fraction}", whole.replace('.', ""));
    let digits = |part: &str| part.ends_with(|c: char| c.is_ascii_digit());
    (digits(whole) && digits(fraction) && Number::of(&number).is_some()).then_some(number)
}

/// Rewrites a number with commas between thousands: `1,000` as `1000`. Returns `None` if `text` is
/// not one.
fn without_thousands(text: &str) -> Option<String> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
    let unsigned = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let (first, rest) = unsigned.split_once(',')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let good = (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && digits(first)
        && rest.split(',').all(|group| group.len() == 3 && digits(group))
        && fraction.is_none_or(digits);
    good.then(|| text.replace(',', ""))
}

/// A description of a number with a comma, and how to write it instead; `None` if `text` is not
/// one.
pub fn comma(text: &str) -> Option<(&'static str, String)> {
    match (without_thousands(text), decimal_comma(text)) {
        (None, None) => None,
        (None, Some(point)) => Some(("a number with a decimal comma", point)),
        (Some(whole), None) => Some(("a number with commas between thousands", whole)),
        (Some(whole), Some(point)) => {
            let what = "a number with a comma that can be a decimal comma or separate thousands";
            Some((what, format!("{whole} or {point}")))
        }
    }
}

/// Whether `letter` is invisible or changes the order of others: controls, joiners, direction
/// marks, variation selectors, the soft hyphen, the byte order mark. Code points that this version
/// of Unicode has not assigned may be visible, and the tag characters in flags are; neither counts
/// as invisible.
fn is_invisible(letter: char) -> bool {
    let control = letter.is_control() && !letter.is_whitespace();
    control
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// The common form of texts that look alike: without case, without invisible characters, in NFC,
/// with single spaces between words and none around them.
pub fn folded(text: &str) -> String {
    let visible: String = text.chars().filter(|letter| !is_invisible(*letter)).collect();
    // Upper case comes first because lower case alone keeps "ß" and "SS" apart.
    let cased = visible.to_uppercase().to_lowercase();
    let composed: String = cased.nfc().map(|(c, _)| c).collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text in quotes, shortened for a message.
pub fn quoted(text: &str) -> String {
    // Cut before it is formatted, so that a long text is not copied whole.
    let start = text.char_indices().nth(100).and_then(|(end, _)| text.get(..end));
    shortened(&format!("{:?}", start.unwrap_or(text)))
}

/// The start of a value, for a message.
pub fn shortened(text: &str) -> String {
    escape::short(text, 80)
}

/// The first of `names`, separated by commas, for a message.
pub fn listed<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let first: Vec<String> =
        names.by_ref().take(SHOWN).map(|name| name.escape_debug().take(60).collect()).collect();
    let more = if names.next().is_some() { ", ..." } else { "" };
    format!("{}{more}", first.join(", "))
}

/// The one of `names` that `name` may be a misspelling of.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min();
    near.map(|(_, known)| known)
}
