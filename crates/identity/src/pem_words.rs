//! Why a text is not PEM, in words.

use rustls_pki_types::pem::Error;

/// Most letters of a marker that a message repeats.
const MARKER_CHARS_MAX: usize = 40;

/// `error` as a person reads it: the library shows the markers of a text as lists of numbers.
pub(crate) fn pem_words(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { end_marker } => {
            format!("the line `{}` is missing; the file may be cut off", marker(end_marker))
        }
        // The line itself may be a part of a key that has lost its beginning.
        Error::IllegalSectionStart { .. } => {
            "a line that begins with `-----BEGIN` does not end with `-----`".to_owned()
        }
        Error::Base64Decode(_) => "what stands between its markers is not base64".to_owned(),
        Error::NoItemsFound => {
            "nothing of the kind is in it, between `-----BEGIN …-----` and `-----END …-----`"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn marker(line: &[u8]) -> String {
    let plain = line.iter().take(MARKER_CHARS_MAX).map(|byte| match byte {
        b' '..=b'~' if *byte != b'`' => char::from(*byte),
        _ => '?',
    });
    let text: String = plain.collect();
    let label = text.trim_start_matches("-----END ").trim_end_matches('-');
    format!("-----END {label}-----")
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_text_is_said_in_words() {
        let check = |text: &str, expected: &str| {
            let error = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap_err();
            assert_eq!(pem_words(&error), expected, "{error}");
        };
        check(
            "-----BEGIN PRIVATE KEY-----\nMIIE\n",
            "the line `-----END PRIVATE KEY-----` is missing; the file may be cut off",
        );
        check(
            "-----BEGIN \u{1b}[2J`-----\nMIIE\n",
            "the line `-----END ?[2J?-----` is missing; the file may be cut off",
        );
        check(
            "-----BEGIN PRIVATE KEY\nMIIE\n",
            "a line that begins with `-----BEGIN` does not end with `-----`",
        );
        check(
            "-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n",
            "what stands between its markers is not base64",
        );
        check(
            "",
            "nothing of the kind is in it, between `-----BEGIN …-----` and `-----END …-----`",
        );
    }
}
