//! One pass over untrusted JSON before anything parses it.
//!
//! A parser that meets a hostile document spends memory and stack before it can refuse. The scan
//! spends neither: it checks the grammar of RFC 8259, our bounds, and that no object names a key
//! twice, because two readers that disagree about which of the two counts are a way round policy.

mod keys;
mod scanner;
#[cfg(test)]
mod tests;

use convoke_model::limits;

use scanner::Scanner;
pub(crate) use scanner::plain_run;

/// Bounds of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Longest document, in bytes.
    pub bytes_max: usize,
    /// Deepest nesting of objects and arrays, at most [`ScanLimits::DEPTH_CEILING`].
    pub depth_max: usize,
    /// Most keys of one object.
    pub keys_max: usize,
    /// Most items of one array.
    pub items_max: usize,
    /// Longest string or key, in bytes of its JSON text without the quotes.
    pub string_bytes_max: usize,
    /// Longest number, in characters.
    pub number_chars_max: usize,
}

impl ScanLimits {
    /// The depth above which no limit can be set: open objects live in an array of this length.
    pub const DEPTH_CEILING: usize = 64;

    /// Bounds of a request body.
    pub const REQUEST: Self = Self {
        bytes_max: limits::BODY_BYTES_MAX,
        depth_max: limits::JSON_DEPTH_MAX,
        keys_max: limits::JSON_KEYS_MAX,
        items_max: limits::JSON_ITEMS_MAX,
        string_bytes_max: limits::JSON_STRING_BYTES_MAX,
        number_chars_max: limits::JSON_NUMBER_CHARS_MAX,
    };

    /// Bounds of a response body.
    pub const RESPONSE: Self = Self { bytes_max: limits::RESPONSE_BYTES_MAX, ..Self::REQUEST };

    /// Bounds of a card.
    pub const CARD: Self = Self { bytes_max: limits::CARD_BYTES_MAX, ..Self::REQUEST };
}

/// Where and why a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct ScanError {
    /// How many bytes come before the one that is wrong.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ScanErrorKind,
}

/// Why a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanErrorKind {
    /// The document is longer than it may be.
    #[error("the document is longer than {max} bytes")]
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// Not UTF-8, the only encoding of JSON between systems (RFC 8259 §8.1).
    #[error("the text is not UTF-8")]
    Utf8,
    /// A byte order mark, which RFC 8259 §8.1 forbids.
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// The document ends in the middle of a value, or holds none.
    #[error("the document ends too early")]
    End,
    /// A byte that cannot stand here.
    #[error("unexpected character")]
    Unexpected,
    /// Something follows the one value.
    #[error("something follows the value")]
    Trailing,
    /// Nested too deeply.
    #[error("nested deeper than {max} levels")]
    Depth {
        /// The limit, in levels.
        max: usize,
    },
    /// An object with too many keys.
    #[error("an object has more than {max} keys")]
    Keys {
        /// The limit.
        max: usize,
    },
    /// An array with too many items.
    #[error("an array has more than {max} items")]
    Items {
        /// The limit.
        max: usize,
    },
    /// A string or key that is too long.
    #[error("a string is longer than {max} bytes")]
    StringLength {
        /// The limit, in bytes.
        max: usize,
    },
    /// A number that is too long.
    #[error("a number is longer than {max} characters")]
    NumberLength {
        /// The limit, in characters.
        max: usize,
    },
    /// A control character that is not escaped.
    #[error("a control character in a string has to be escaped")]
    Control,
    /// A backslash with something behind it that is no escape.
    #[error("not an escape")]
    Escape,
    /// Half of a surrogate pair, which is no character.
    #[error("half of a surrogate pair")]
    Surrogate,
    /// Two keys of one object that are equal once their escapes are read.
    #[error("the object has this key twice")]
    DuplicateKey,
}

impl ScanErrorKind {
    /// Whether one of our bounds was passed, as opposed to the grammar being broken.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Self::TooLong { .. }
                | Self::Depth { .. }
                | Self::Keys { .. }
                | Self::Items { .. }
                | Self::StringLength { .. }
                | Self::NumberLength { .. }
        )
    }
}

/// Checks that `bytes` are exactly one JSON value within `limits`, and gives them as text.
///
/// Takes time in proportion to the length, times a logarithm for the keys of large objects.
/// Allocates only when more than 64 keys are open at a time or a key has an escape.
///
/// # Errors
///
/// [`ScanError`] with the first offence. A duplicate key is noticed at the end of its object.
pub fn scan<'a>(bytes: &'a [u8], limits: &ScanLimits) -> Result<&'a str, ScanError> {
    let length_max = limits.bytes_max.min(u32::MAX as usize);
    if bytes.len() > length_max {
        return Err(ScanError {
            offset: length_max,
            kind: ScanErrorKind::TooLong { max: length_max },
        });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(ScanError { offset: 0, kind: ScanErrorKind::ByteOrderMark });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ScanError { offset: error.valid_up_to(), kind: ScanErrorKind::Utf8 })?;
    Scanner::new(text, limits).document()?;
    Ok(text)
}
