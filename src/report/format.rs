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

/// Text as a terminal may get it: control characters, and those that turn the direction of writing, are spelled out as
/// JSON spells them (`\u001b`), so that a name can neither colour, move nor hide what stands around it. Line breaks and
/// tabs stay.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let stays = matches!(c, '\n' | '\t') || c == '\r' && characters.peek() == Some(&'\n');
        if !stays && (c.is_control() || turns_or_breaks(c)) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// The same in one line: line breaks and tabs are spelled out too.
pub fn plain(text: &str) -> String {
    visible(text).replace("\r\n", "\\r\\n").replace('\n', "\\n").replace('\t', "\\t")
}

/// A message as one or several lines: a line break stays only where the next line is indented, as lists of our own are.
pub fn message(text: &str) -> String {
    let indented = text.split("\n  ").map(plain);
    indented.collect::<Vec<_>>().join("\n  ")
}

/// Marks, embeddings, overrides and isolates of bidirectional text, and the line breaks that are no control characters.
pub(super) fn turns_or_breaks(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `columns` characters; a longer text ends in `...`.
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_string();
    }
    let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// At most `columns` characters; a longer text loses some in the middle, where `...` stands. Of a path, the end says more
/// than the beginning, and has two thirds.
pub fn middle_out(text: &str, columns: usize) -> String {
    let length = text.chars().count();
    if length <= columns {
        return text.to_string();
    }
    let kept = columns.saturating_sub(3);
    let (first, last) = (kept / 3, kept - kept / 3);
    let end = text.chars().skip(length - last);
    text.chars().take(first).chain("...".chars()).chain(end).take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(middle_out("results/a/b", 11), "results/a/b");
        assert_eq!(middle_out("results/a/b", 9), "re.../a/b");
        assert_eq!((middle_out("äöüßé", 4), middle_out("abcdef", 2)), ("...é".to_owned(), "..".to_owned()));
    }

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
        let text = "a\tb\u{1b}[31mc\r\nd\re\u{9b}\u{202e}\u{7f}";
        assert_eq!(visible(text), "a\tb\\u001b[31mc\r\nd\\u000de\\u009b\\u202e\\u007f");
        assert_eq!(plain(text), "a\\tb\\u001b[31mc\\r\\nd\\u000de\\u009b\\u202e\\u007f");
        assert_eq!(message("bad:\n  one\n  two\nerror: three"), "bad:\n  one\n  two\\nerror: three");
        let json = serde_json::to_string("a\u{9b}\u{202e}\n").unwrap();
        assert_eq!(serde_json::from_str::<String>(&visible(&json)).unwrap(), "a\u{9b}\u{202e}\n");
        assert_eq!(cut("0123456789", 7), "0123...");
        assert_eq!(cut("0123456789", 10), "0123456789");
    }
}
