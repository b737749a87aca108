//! Numbers and names as text.

use crate::numbers::thousands;
use crate::stats::Spread;

/// A mean and its standard deviation to four decimals: `0.8724 ± 0.0041`.
pub fn spread(spread: &Spread) -> String {
    with(spread, |value| format!("{value:.4}"))
}

/// The mean and, if there is one, the standard deviation, each formatted by `shown`.
pub fn with(spread: &Spread, shown: impl Fn(f64) -> String) -> String {
    match spread.sd {
        Some(sd) => format!("{} ± {}", shown(spread.mean), shown(sd)),
        None => shown(spread.mean),
    }
}

/// A number to `digits` significant digits: `0.118`, `12.3`, `1,234`.
pub fn digits(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let exponent = value.abs().log10().floor() as i32;
    let places = (digits - 1 - exponent).max(0) as usize;
    let text = format!("{value:.places$}");
    match text.parse::<u64>() {
        Ok(whole) => thousands(whole),
        Err(_) => text,
    }
}

/// A share as a percentage: `0.118 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", digits(100.0 * share, 3))
}

/// A number of bytes: `116 kB`, `90.9 MB`.
pub fn bytes(count: f64) -> String {
    match count {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{} kB", digits(n / 1e3, 3)),
        n if n < 1e9 => format!("{} MB", digits(n / 1e6, 3)),
        n => format!("{} GB", digits(n / 1e9, 3)),
    }
}

/// A count for an axis: `500`, `27k`, `1.5M`.
pub fn short(count: f64) -> String {
    match count.abs() {
        n if n >= 1e9 => format!("{}G", trimmed(count / 1e9)),
        n if n >= 1e6 => format!("{}M", trimmed(count / 1e6)),
        n if n >= 1e3 => format!("{}k", trimmed(count / 1e3)),
        _ => trimmed(count),
    }
}

/// A number to at most three decimals, without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration: `42.1 ms`, `3.42 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{} ms", digits(1e3 * seconds, 3))
    } else {
        format!("{} s", digits(seconds, 3))
    }
}

/// A probability: `0.032`, `< 0.001`.
pub fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// A difference with its sign: `+0.0012`, `−0.0304`.
pub fn signed(value: f64) -> String {
    if value < 0.0 { format!("−{:.4}", -value) } else { format!("+{value:.4}") }
}

/// A learning rate in scientific notation: `4e-4` for `0.0004`.
pub fn rate_name(rate: f64) -> String {
    format!("{rate:e}")
}

/// A learning rate, or a dash for a method that takes no steps.
pub fn rate_or_dash(rate: Option<f64>) -> String {
    rate.map_or("–".into(), rate_name)
}

/// A name as part of a file name: lower-case letters, digits and dashes.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars().flat_map(char::to_lowercase) {
        if letter.is_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}
