//! Where a value ends.
//!
//! The scan has accepted the text, so what ends a value is a matter of quotes and brackets; the
//! grammar between them is not looked at again. Of a text that no scan has seen the answer may be
//! wrong, but it is one: within the text, or none.

use crate::scan::plain_run;

/// Where the value that begins at `from` ends. `None` if none begins there or the text ends first.
pub(crate) fn end_of_value(bytes: &[u8], from: usize) -> Option<usize> {
    match *bytes.get(from)? {
        b'"' => end_of_string(bytes, from),
        b'{' | b'[' => end_of_nest(bytes, from),
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
            let word =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            let length = bytes[from..].iter().take_while(|byte| word(byte)).count();
            Some(from + length)
        }
        _ => None,
    }
}

/// Where the object or array that begins at `from` ends.
///
/// Brackets are counted without a branch for each kind, since which comes next cannot be predicted.
/// An opening one and its closing one differ in one bit from a brace, and from nothing else that
/// stands between strings.
fn end_of_nest(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut open = 0_usize;
    loop {
        let byte = *bytes.get(at)?;
        if byte == b'"' {
            at = end_of_string(bytes, at)?;
            continue;
        }
        at += 1;
        let brace = byte | 0x20;
        open = open + usize::from(brace == b'{') - usize::from(brace == b'}');
        if open == 0 {
            return Some(at);
        }
    }
}

/// Where the string whose first quote is at `from` ends, behind its second quote.
fn end_of_string(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += plain_run(bytes.get(at..)?);
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            // Whatever is escaped is one byte that is no quote; the digits behind `\u` are plain.
            b'\\' => at += 2,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::{ScanLimits, scan};

    #[test]
    fn values_end_where_they_should() {
        for (text, expected) in [
            (r#""a" "#, Some(3)),
            (r#""a\"b\\",1"#, Some(8)),
            (r#""\u0022","#, Some(8)),
            ("-1.5e+3,", Some(7)),
            ("true}", Some(4)),
            ("null", Some(4)),
            (r#"{"}":["]",{}]}]"#, Some(14)),
            ("[]]", Some(2)),
            ("", None),
            (" 1", None),
            ("}", None),
            (":", None),
            ("[1,", None),
            (r#"{"a"#, None),
            (r#""a\"#, None),
            (r#""a\""#, None),
            ("\"a\n\"", None),
        ] {
            assert_eq!(end_of_value(text.as_bytes(), 0), expected, "{text}");
        }
        assert_eq!(end_of_value(b"1", 2), None);
    }

    /// JSON values of every kind, written with and without spaces and escapes.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            any::<f32>()
                .prop_filter("finite", |value| value.is_finite())
                .prop_map(|value| { format!("{value:e}") }),
            string(),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            let array = proptest::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(" , ")));
            let object = proptest::collection::vec((string(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .enumerate()
                    .map(|(index, (key, value))| format!("\"{index}{}\t:\n{value}", &key[1..]))
                    .collect();
                format!("{{ {}}}", members.join(","))
            });
            prop_oneof![array, object]
        })
    }

    fn string() -> impl Strategy<Value = String> {
        r#""([a-z\{\}\[\],: é😀]|\\["\\/bfnrt]|\\u00[2-7][0-9a-f]|\\ud83d\\ude00){0,20}""#
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

        /// Beside serde_json, which reads the grammar.
        #[test]
        fn what_the_scan_accepts_is_cut_as_serde_json_cuts_it(text in json(), behind in "[ ,\\]}\n]?") {
            let bounds = ScanLimits { string_bytes_max: usize::MAX, ..ScanLimits::REQUEST };
            prop_assert_eq!(scan(text.as_bytes(), &bounds), Ok(text.as_str()));
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            let followed = format!("{text}{behind}");
            prop_assert_eq!(end_of_value(followed.as_bytes(), 0), Some(raw.get().len()));
        }

        #[test]
        fn what_no_scan_has_seen_is_cut_within_the_text(text in r#"["\\\[\]{},:a1 \n]{0,24}"#, from in 0..26_usize) {
            if let Some(end) = end_of_value(text.as_bytes(), from) {
                prop_assert!(from < end && end <= text.len());
            }
        }
    }
}
