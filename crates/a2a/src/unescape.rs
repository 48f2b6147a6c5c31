//! JSON strings: escapes read and written.

use std::borrow::Cow;

use crate::scan::plain_run;

/// The value of four hexadecimal digits at `at`, if there are four.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<4>()?.iter().try_fold(0, |unit: u16, &byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

/// The string whose JSON text, without its quotes, is `text`.
///
/// `text` has passed the scan or serde_json; of a text that has not, broken escapes are left out.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else { return Cow::Borrowed(text) };
    let mut read = String::with_capacity(text.len());
    let (plain, mut rest) = text.split_at(first);
    read.push_str(plain);
    while let Some(escape) = rest.strip_prefix('\\') {
        let (character, length) = one(escape);
        read.extend(character);
        rest = escape.get(length..).unwrap_or_default();
        let next = rest.find('\\').unwrap_or(rest.len());
        let (plain, escaped) = rest.split_at(next);
        read.push_str(plain);
        rest = escaped;
    }
    Cow::Owned(read)
}

/// The character of one escape, whose backslash has been read, and how many bytes it takes.
fn one(escape: &str) -> (Option<char>, usize) {
    let bytes = escape.as_bytes();
    let simple = match bytes.first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let Some(unit) = hex4(bytes, 1) else { return (None, 1) };
            if !(0xd800..=0xdbff).contains(&unit) {
                return (char::from_u32(u32::from(unit)), 5);
            }
            let low = hex4(bytes, 7).filter(|_| bytes.get(5..7) == Some(b"\\u".as_slice()));
            let pair = char::decode_utf16([unit, low.unwrap_or_default()]).next();
            return match pair {
                Some(Ok(character)) => (Some(character), 11),
                _ => (None, 5),
            };
        }
        Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
        _ => return (None, 0),
    };
    (Some(simple), 1)
}

/// Writes `text` as a JSON string with its quotes; only what has to be escaped is.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    // What ends a plain run is what has to be escaped.
    while let Some((plain, [byte, behind @ ..])) = rest.split_at_checked(plain_run(rest)) {
        out.extend_from_slice(plain);
        rest = behind;
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_serde_json_reads_them() {
        for text in [
            "",
            "plain",
            r"\u0041",
            r"a\nb\t\r\b\f\/\\\u0000",
            r#"\""#,
            r"\ud83d\ude00x\u00e9",
            r"é\u20ACé",
            r"\\u0041",
        ] {
            let expected: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(unescape(text), expected, "{text}");
        }
        assert!(matches!(unescape("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn broken_escapes_do_not_panic() {
        for text in [r"\", r"\u", r"\u12", r"\ud800", r"\ud800\u", r"\ud800\u0041", r"\é", r"\uéé"]
        {
            let _ = unescape(text);
        }
    }

    #[test]
    fn strings_are_written_so_that_they_read_back() {
        for text in ["", "plain", "a\"b\\c/d", "\u{0}\u{1f}\n\r\t", "é😀\u{7f}\u{2028}"] {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let mut out = Vec::new();
        write_string(&mut out, "a\n\u{1}é");
        assert_eq!(out, "\"a\\n\\u0001é\"".as_bytes());
    }
}
