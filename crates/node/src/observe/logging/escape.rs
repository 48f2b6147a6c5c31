//! Text from anywhere, made harmless for a line.

use std::fmt::Write as _;

/// Appends `text` as the inside of a JSON string.
pub(super) fn push_json(out: &mut String, text: &str) {
    // Nearly all texts are visible ASCII. Looking at every byte without a way out is what the
    // compiler turns into vector instructions.
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        return out.push_str(text);
    }
    push(out, text, |c| matches!(c, '"' | '\\') || is_hidden(c));
}

/// Appends JSON text that is already well formed, such as that of a nested value.
///
/// Hidden characters can only stand inside its strings, where an escape means the same; white
/// space between tokens becomes blanks, which means the same too.
pub(super) fn push_json_text(out: &mut String, json: &str) {
    let mut rest = json;
    while let Some(at) = rest.find(['\n', '\r', '\t']) {
        push(out, &rest[..at], is_hidden);
        out.push(' ');
        rest = &rest[at + 1..];
    }
    push(out, rest, is_hidden);
}

/// Appends `text` for people: what a terminal would obey is escaped, the rest is as it is.
pub(crate) fn push_plain(out: &mut String, text: &str) {
    push(out, text, is_hidden);
}

fn push(out: &mut String, text: &str, escapes: impl Fn(char) -> bool) {
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        if !escapes(c) {
            continue;
        }
        out.push_str(&text[copied..at]);
        copied = at + c.len_utf8();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push_str(&text[copied..]);
}

/// Whether a terminal would obey `c` instead of showing it, or break the line at it.
///
/// Controls are C0, DEL and C1. Beyond them: line and paragraph separators, the directional marks,
/// embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9 §2), with which
/// one text is made to look like another, and the invisible tag characters.
fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => true,
        '\u{e0000}'..='\u{e007f}' => true,
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_read_back_as_they_were() {
        let check = |text: &str, expected: &str| {
            let mut out = String::from("\"");
            push_json(&mut out, text);
            out.push('"');
            assert_eq!(out, format!("\"{expected}\""));
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        };
        check("plain é 👩‍👩‍👧", "plain é 👩‍👩‍👧");
        check("a\"b\\c", "a\\\"b\\\\c");
        check("l1\nl2\r\t", "l1\\nl2\\r\\t");
        check("\u{1b}[31m\0\u{7f}", "\\u001b[31m\\u0000\\u007f");
        check("\u{9b}31m\u{85}", "\\u009b31m\\u0085");
        check("\u{202e}x\u{2066}\u{2028}\u{feff}", "\\u202ex\\u2066\\u2028\\ufeff");
        check("\u{e0041}", "\\udb40\\udc41");
    }

    #[test]
    fn nested_json_keeps_its_value_on_one_line() {
        let json = "{\n\t\"a\":\r[1, \"\u{2028}\\n\"]}";
        let mut out = String::new();
        push_json_text(&mut out, json);
        assert_eq!(out, "{  \"a\": [1, \"\\u2028\\n\"]}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&out), read(json));
    }

    #[test]
    fn plain_text_keeps_its_quotes() {
        let mut out = String::new();
        push_plain(&mut out, "say \"hi\" \\ \u{1b}[2J\n");
        assert_eq!(out, "say \"hi\" \\ \\u001b[2J\\n");
    }
}
