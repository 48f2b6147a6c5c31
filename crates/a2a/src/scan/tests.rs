use super::*;

use ScanErrorKind as K;

const TINY: ScanLimits = ScanLimits {
    bytes_max: 4096,
    depth_max: 3,
    keys_max: 3,
    items_max: 4,
    string_bytes_max: 8,
    number_chars_max: 6,
};

fn check(limits: &ScanLimits, input: impl AsRef<[u8]>, expected: Result<(), (K, usize)>) {
    let input = input.as_ref();
    let found = scan(input, limits).map(|text| assert_eq!(text.as_bytes(), input));
    let found = found.map_err(|error| (error.kind, error.offset));
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(input));
}

#[test]
fn one_value_of_any_kind_passes() {
    for text in [
        "{}",
        "[]",
        " \t\r\n1 \n",
        "0",
        "-0",
        "-12.50e+3",
        "1E5",
        "true",
        "false",
        "null",
        r#""""#,
        r#""\"\\\/\b\f\n\r\t\u0041""#,
        r#""\ud83d\ude00 \uD83D\uDE00""#,
        "\"é😀\u{7f}\u{2028}\"",
        r#"{"a":{"b":[1,{"c":null}]},"d":[[]]}"#,
        r#"{ "a" : 1 , "b" : [ 1 , 2 ] }"#,
        r#"{"":1,"a":2}"#,
    ] {
        check(&ScanLimits::REQUEST, text, Ok(()));
    }
}

#[test]
fn the_grammar_is_kept() {
    for (text, kind, offset) in [
        ("", K::End, 0),
        ("  ", K::End, 2),
        ("{", K::End, 1),
        ("[1,", K::End, 3),
        ("[1,]", K::Unexpected, 3),
        ("[1 2]", K::Unexpected, 3),
        ("[1}", K::Unexpected, 2),
        ("{\"a\":1]", K::Unexpected, 6),
        ("{\"a\":1,}", K::Unexpected, 7),
        ("{\"a\" 1}", K::Unexpected, 5),
        ("{\"a\":}", K::Unexpected, 5),
        ("{a:1}", K::Unexpected, 1),
        ("{1:1}", K::Unexpected, 1),
        ("{,}", K::Unexpected, 1),
        ("1 1", K::Trailing, 2),
        ("{}{}", K::Trailing, 2),
        ("nul", K::End, 3),
        ("nulL", K::Unexpected, 3),
        ("True", K::Unexpected, 0),
        ("NaN", K::Unexpected, 0),
        ("+1", K::Unexpected, 0),
        (".5", K::Unexpected, 0),
        ("01", K::Trailing, 1),
        ("-", K::End, 1),
        ("-a", K::Unexpected, 1),
        ("1.", K::End, 2),
        ("1.e5", K::Unexpected, 2),
        ("1e", K::End, 2),
        ("1e+", K::End, 3),
        ("1ex", K::Unexpected, 2),
        ("'a'", K::Unexpected, 0),
        ("// x\n1", K::Unexpected, 0),
        ("\u{a0}1", K::Unexpected, 0),
        ("\"", K::End, 1),
        ("\"abcdefgh", K::End, 9),
        ("\"a\\", K::End, 3),
        ("\"a\nb\"", K::Control, 2),
        ("\"abcdefgh\u{0}\"", K::Control, 9),
        ("\"abcdefg\u{1f}\"", K::Control, 8),
        ("\"\\x41\"", K::Escape, 1),
        ("\"\\u00g0\"", K::Escape, 1),
        ("\"\\u00\"", K::Escape, 1),
        ("\"\\ud800\"", K::Surrogate, 1),
        ("\"\\udc00\"", K::Surrogate, 1),
        ("\"\\ud800\\u0041\"", K::Surrogate, 1),
        ("\"\\ud800\\ud800\"", K::Surrogate, 1),
        ("\"\\ud800\\n\"", K::Surrogate, 1),
    ] {
        check(&ScanLimits::REQUEST, text, Err((kind, offset)));
    }
    check(&ScanLimits::REQUEST, b"\xef\xbb\xbf{}", Err((K::ByteOrderMark, 0)));
    check(&ScanLimits::REQUEST, b"[\"\xff\"]", Err((K::Utf8, 2)));
    check(&ScanLimits::REQUEST, b"{\0}\0", Err((K::Unexpected, 1)));
}

#[test]
fn bounds_hold_to_the_one() {
    check(&TINY, "[[[]]]", Ok(()));
    check(&TINY, "[[[[]]]]", Err((K::Depth { max: 3 }, 3)));
    check(&TINY, r#"{"a":{"b":{"c":{}}}}"#, Err((K::Depth { max: 3 }, 15)));
    check(&TINY, r#"{"a":1,"b":2,"c":3}"#, Ok(()));
    check(&TINY, r#"{"a":1,"b":2,"c":3,"d":4}"#, Err((K::Keys { max: 3 }, 19)));
    check(&TINY, "[1,2,3,4]", Ok(()));
    check(&TINY, "[1,2,3,4,5]", Err((K::Items { max: 4 }, 9)));
    check(&TINY, r#""12345678""#, Ok(()));
    check(&TINY, r#" "123456789""#, Err((K::StringLength { max: 8 }, 1)));
    check(&TINY, r#"{"123456789":1}"#, Err((K::StringLength { max: 8 }, 1)));
    check(&TINY, "-1.5e3", Ok(()));
    check(&TINY, "-1.5e33", Err((K::NumberLength { max: 6 }, 0)));
    let long = vec![b' '; TINY.bytes_max + 1];
    check(&TINY, long, Err((K::TooLong { max: 4096 }, 4096)));
    // No limit lifts the ceiling of the depth.
    let deep = ScanLimits { depth_max: usize::MAX, ..ScanLimits::REQUEST };
    let ceiling = ScanLimits::DEPTH_CEILING;
    check(&deep, "[".repeat(ceiling) + &"]".repeat(ceiling), Ok(()));
    check(&deep, "[".repeat(100_000), Err((K::Depth { max: ceiling }, ceiling)));
}

#[test]
fn keys_are_compared_as_they_read() {
    let twice = |text: &str, offset| {
        check(&ScanLimits::REQUEST, text, Err((K::DuplicateKey, offset)));
    };
    twice(r#"{"a":1,"a":2}"#, 7);
    twice(r#"{"a":1,"\u0061":2}"#, 7);
    twice(r#"{"\u0061":1,"a":2}"#, 12);
    twice(r#"{"\/":1,"/":2}"#, 8);
    twice(r#"{"x":[{"b":1,"c":2,"b":3}]}"#, 19);
    twice(r#"{"":1,"":2}"#, 6);
    twice(r#"{"\ud83d\ude00":1,"😀":2}"#, 18);
    check(&ScanLimits::REQUEST, r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#, Ok(()));
    check(&ScanLimits::REQUEST, r#"{"a":1,"A":2,"a ":3,"\\u0061":4}"#, Ok(()));
}

/// Objects on both sides of every way of keeping and comparing keys.
#[test]
fn duplicates_are_found_in_objects_of_any_size() {
    for count in [2, 3, 15, 16, 17, 18, 63, 64, 65, 66, 200, 1024] {
        for escaped in [false, true] {
            let mut keys: Vec<String> = (0..count).map(|n| format!("\"key{n}\":{n}")).collect();
            if escaped {
                keys[0] = r#""\u006bey0":0"#.into();
            }
            let object = format!("{{{}}}", keys.join(","));
            check(&ScanLimits::REQUEST, &object, Ok(()));
            // The same inside of others that are still open.
            check(
                &ScanLimits::REQUEST,
                format!(r#"{{"key0":{object},"key1":[{object}]}}"#),
                Ok(()),
            );
            let last = keys.len() - 1;
            keys[last] = "\"key0\":1".into();
            let object = format!("{{{}}}", keys.join(","));
            let offset = object.rfind("\"key0\"").unwrap();
            check(&ScanLimits::REQUEST, &object, Err((K::DuplicateKey, offset)));
            let outer = format!(r#"{{"a":1,"b":{object}}}"#);
            check(&ScanLimits::REQUEST, outer, Err((K::DuplicateKey, offset + 11)));
        }
    }
}

#[test]
fn plain_runs_end_at_the_first_special_byte() {
    for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
        for length in 0..40 {
            for after in [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xff, special] {
                let mut bytes = vec![0x20 + (length as u8 & 1); length];
                bytes.push(special);
                bytes.extend([after; 9]);
                assert_eq!(plain_run(&bytes), length, "{special} {after}");
            }
        }
    }
    let plain: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != b'"' && *byte != b'\\').collect();
    assert_eq!(plain_run(&plain), plain.len());
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    /// Texts in which JSON is likely, whole and broken.
    fn jsonish() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just(" "),
            Just("\"a\""),
            Just("\"b\""),
            Just("\"\\u0061\""),
            Just("\"\\ud83d\\ude00\""),
            Just("\"\\ud800\""),
            Just("\"é\n\""),
            Just("\"é\""),
            Just("\""),
            Just("\\"),
            Just("0"),
            Just("-1"),
            Just("01"),
            Just("1.5e-3"),
            Just("1e"),
            Just("true"),
            Just("null"),
            Just("nul"),
            Just("\u{0}"),
            Just("{}"),
            Just("[]"),
            Just("\"c\":"),
        ];
        proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f32>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| {
                    let member = |(key, value): &(String, String)| {
                        format!("{}: {value}", serde_json::to_string(key).unwrap())
                    };
                    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    fn agrees(text: &[u8]) {
        let ours = scan(text, &ScanLimits::REQUEST);
        let theirs = serde_json::from_slice::<&RawValue>(text);
        match (ours, theirs) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => panic!("scan accepts, serde_json: {error}"),
            // Where we mean to be stricter; a lone surrogate is skipped over by RawValue only.
            (Err(error), Ok(_)) => match error.kind {
                K::DuplicateKey => {}
                K::Surrogate => {
                    serde_json::from_slice::<serde_json::Value>(text).unwrap_err();
                }
                other if other.is_limit() => {}
                other => panic!("serde_json accepts, scan: {other}"),
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn scan_agrees_with_serde_json_on_jsonish(text in jsonish()) {
            agrees(text.as_bytes());
        }

        #[test]
        fn scan_agrees_with_serde_json_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            agrees(&bytes);
        }

        #[test]
        fn scan_accepts_values(text in value()) {
            match scan(text.as_bytes(), &ScanLimits::REQUEST) {
                Ok(_) => {}
                Err(error) => prop_assert_eq!(error.kind, K::DuplicateKey),
            }
        }

        #[test]
        fn scan_agrees_with_serde_json_on_damaged_values(text in value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            agrees(&bytes);
        }
    }
}
