//! Numbers and durations as people read them in a line of text.

use std::time::Duration;

/// About three significant digits, without an exponent between 0.001 and a million: `0.6`, `0.0312`, `3.1e-5`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        return format!("{value}");
    }
    if !(0.001..1e6).contains(&size) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let decimals = (2 - size.log10().floor() as i64).clamp(0, 5) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// `0:42`, `12:05`, `2:13:05`, `3 d 04 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{:02}", seconds % 60),
        (0, _) => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days} d {hours:02} h"),
    }
}

/// The text without control characters: line breaks and tabs become spaces, the rest is dropped.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// At most `columns` characters; a longer text ends in `...`.
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_string();
    }
    let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        for (value, text) in [
            (0.6, "0.6"),
            (0.03125, "0.0312"),
            (3.14e-5, "3.1e-5"),
            (1e-6, "1e-6"),
            (1893.4, "1893"),
            (12.345, "12.3"),
            (999_999.0, "999999"),
            (2.5e7, "2.5e7"),
            (-0.25, "-0.25"),
            (0.0, "0"),
            (100.0, "100"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(value), text, "{value:?}");
        }
    }

    #[test]
    fn durations_read_like_a_clock() {
        for (seconds, text) in [(0, "0:00"), (42, "0:42"), (725, "12:05"), (7_985, "2:13:05"), (273_600, "3 d 04 h")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(plain("a\tb\u{1b}[31mc\r\nd"), "a b[31mc d");
        assert_eq!(cut("0123456789", 7), "0123...");
        assert_eq!(cut("0123456789", 10), "0123456789");
    }
}
