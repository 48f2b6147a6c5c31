//! One pass over untrusted JSON before anything parses it.
//!
//! A parser that meets a hostile document spends memory and stack before it can refuse. The scan
//! spends neither: it checks the grammar of RFC 8259, our bounds, and that no object names a key
//! twice, because two readers that disagree about which of the two counts are a way round policy.

use std::borrow::Cow;

use convoke_model::limits;

use crate::unescape;

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
/// Takes time in proportion to the length (times its logarithm for keys of large objects), one
/// allocation only when more than 64 keys are open at a time or a key has an escape.
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
    let mut scanner = Scanner {
        text,
        bytes,
        at: 0,
        limits,
        depth: 0,
        open: [Frame::NONE; DEPTH],
        keys: Keys::new(),
    };
    scanner.document()?;
    Ok(text)
}

const DEPTH: usize = ScanLimits::DEPTH_CEILING;

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    limits: &'a ScanLimits,
    depth: usize,
    open: [Frame; DEPTH],
    keys: Keys,
}

/// An object or array whose end has not come yet.
#[derive(Clone, Copy)]
struct Frame {
    object: bool,
    escaped: bool,
    count: u32,
    /// Where the object's keys begin among all open keys.
    keys_from: u32,
}

impl Frame {
    const NONE: Self = Self { object: false, escaped: false, count: 0, keys_from: 0 };
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), ScanError> {
        loop {
            if self.value()? {
                continue;
            }
            if self.after_value()? {
                continue;
            }
            self.space();
            return if self.at == self.bytes.len() {
                Ok(())
            } else {
                Err(self.error(ScanErrorKind::Trailing))
            };
        }
    }

    /// Reads a value. Gives true if another has to come first: that was the beginning of an object
    /// or array with something in it.
    fn value(&mut self) -> Result<bool, ScanError> {
        self.space();
        match self.peek()? {
            b'"' => self.string().map(|_| false),
            b'{' => {
                self.push(true)?;
                self.space();
                if self.peek()? == b'}' {
                    self.pop()?;
                    return Ok(false);
                }
                self.key().map(|()| true)
            }
            b'[' => {
                self.push(false)?;
                self.space();
                if self.peek()? == b']' {
                    self.pop()?;
                    return Ok(false);
                }
                self.item().map(|()| true)
            }
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            b't' => self.literal(b"true").map(|()| false),
            b'f' => self.literal(b"false").map(|()| false),
            b'n' => self.literal(b"null").map(|()| false),
            _ => Err(self.error(ScanErrorKind::Unexpected)),
        }
    }

    /// Closes what ends here. Gives true if another value has to come.
    fn after_value(&mut self) -> Result<bool, ScanError> {
        while self.depth > 0 {
            let object = self.open[self.depth - 1].object;
            self.space();
            match (object, self.peek()?) {
                (true, b',') => {
                    self.at += 1;
                    self.space();
                    return self.key().map(|()| true);
                }
                (false, b',') => {
                    self.at += 1;
                    return self.item().map(|()| true);
                }
                (true, b'}') | (false, b']') => self.pop()?,
                _ => return Err(self.error(ScanErrorKind::Unexpected)),
            }
        }
        Ok(false)
    }

    fn push(&mut self, object: bool) -> Result<(), ScanError> {
        let max = self.limits.depth_max.min(DEPTH);
        if self.depth >= max {
            return Err(self.error(ScanErrorKind::Depth { max }));
        }
        // The document's length fits in 32 bits, so the number of its keys does.
        let keys_from = self.keys.len() as u32;
        self.open[self.depth] = Frame { object, escaped: false, count: 0, keys_from };
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn pop(&mut self) -> Result<(), ScanError> {
        self.depth -= 1;
        self.at += 1;
        let frame = self.open[self.depth];
        if frame.object && frame.count > 1 {
            let from = frame.keys_from as usize;
            let twice = if frame.escaped {
                duplicate_escaped(self.text, &self.keys.slice()[from..])
            } else {
                duplicate(self.bytes, &mut self.keys.slice_mut()[from..])
            };
            if let Some(offset) = twice {
                return Err(ScanError { offset, kind: ScanErrorKind::DuplicateKey });
            }
        }
        if frame.object {
            self.keys.truncate(frame.keys_from as usize);
        }
        Ok(())
    }

    fn item(&mut self) -> Result<(), ScanError> {
        let max = self.limits.items_max;
        let frame = &mut self.open[self.depth - 1];
        frame.count += 1;
        if frame.count as usize > max {
            return Err(self.error(ScanErrorKind::Items { max }));
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(), ScanError> {
        if self.peek()? != b'"' {
            return Err(self.error(ScanErrorKind::Unexpected));
        }
        let from = self.at + 1;
        let escaped = self.string()?;
        let max = self.limits.keys_max;
        let frame = &mut self.open[self.depth - 1];
        frame.count += 1;
        frame.escaped |= escaped;
        if frame.count as usize > max {
            return Err(ScanError { offset: from - 1, kind: ScanErrorKind::Keys { max } });
        }
        self.keys.push(Span { from: from as u32, to: (self.at - 1) as u32 });
        self.space();
        if self.peek()? != b':' {
            return Err(self.error(ScanErrorKind::Unexpected));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a string with its quotes. Gives whether it has an escape.
    fn string(&mut self) -> Result<bool, ScanError> {
        let from = self.at + 1;
        let mut escaped = false;
        self.at = from;
        loop {
            self.at += plain_run(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.error(ScanErrorKind::Control)),
            }
        }
        let max = self.limits.string_bytes_max;
        if self.at - from > max {
            return Err(ScanError { offset: from - 1, kind: ScanErrorKind::StringLength { max } });
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        match self.bytes.get(self.at + 1) {
            None => Err(ScanError { offset: self.bytes.len(), kind: ScanErrorKind::End }),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = unescape::hex4(self.bytes, self.at + 2)
                    .ok_or_else(|| self.error(ScanErrorKind::Escape))?;
                let pair = match unit {
                    0xd800..=0xdbff => self
                        .bytes
                        .get(self.at + 6..self.at + 8)
                        .filter(|next| *next == b"\\u")
                        .and_then(|_| unescape::hex4(self.bytes, self.at + 8))
                        .is_some_and(|low| (0xdc00..=0xdfff).contains(&low)),
                    0xdc00..=0xdfff => false,
                    _ => {
                        self.at += 6;
                        return Ok(());
                    }
                };
                if !pair {
                    return Err(self.error(ScanErrorKind::Surrogate));
                }
                self.at += 12;
                Ok(())
            }
            Some(_) => Err(self.error(ScanErrorKind::Escape)),
        }
    }

    fn number(&mut self) -> Result<(), ScanError> {
        let from = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        let max = self.limits.number_chars_max;
        if self.at - from > max {
            return Err(ScanError { offset: from, kind: ScanErrorKind::NumberLength { max } });
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.error(ScanErrorKind::Unexpected));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ScanError> {
        for &letter in word {
            if self.peek()? != letter {
                return Err(self.error(ScanErrorKind::Unexpected));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, ScanError> {
        self.bytes.get(self.at).copied().ok_or_else(|| self.error(ScanErrorKind::End))
    }

    #[cold]
    fn error(&self, kind: ScanErrorKind) -> ScanError {
        ScanError { offset: self.at, kind }
    }
}

/// How many bytes of `bytes` come before the first quote, backslash or control character.
///
/// Eight bytes at a time: a lane of a word is marked when its byte is one of the three. A mark may
/// be false only above a true one, so the lowest mark is always right.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let marks = has_zero(word ^ (ONES * b'"' as u64))
            | has_zero(word ^ (ONES * b'\\' as u64))
            | (word.wrapping_sub(ONES * 0x20) & !word & HIGHS);
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let plain = |byte: &u8| *byte != b'"' && *byte != b'\\' && *byte >= 0x20;
    at + bytes[at..].iter().take_while(|byte| plain(byte)).count()
}

/// The text of a key, as a range of the document's bytes.
#[derive(Clone, Copy)]
struct Span {
    from: u32,
    to: u32,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.from as usize..self.to as usize
    }
}

/// The keys of all open objects: in place while they are few, on the heap after that.
struct Keys {
    near: [Span; Self::NEAR],
    near_len: usize,
    far: Vec<Span>,
}

impl Keys {
    const NEAR: usize = 64;

    fn new() -> Self {
        Self { near: [Span { from: 0, to: 0 }; Self::NEAR], near_len: 0, far: Vec::new() }
    }

    /// Whether the keys have moved to the heap, where they then stay.
    fn is_far(&self) -> bool {
        self.far.capacity() > 0
    }

    fn len(&self) -> usize {
        if self.is_far() { self.far.len() } else { self.near_len }
    }

    fn push(&mut self, span: Span) {
        if !self.is_far() {
            if let Some(slot) = self.near.get_mut(self.near_len) {
                *slot = span;
                self.near_len += 1;
                return;
            }
            self.far.reserve(4 * Self::NEAR);
            self.far.extend_from_slice(&self.near);
        }
        self.far.push(span);
    }

    fn truncate(&mut self, len: usize) {
        if self.is_far() { self.far.truncate(len) } else { self.near_len = len }
    }

    fn slice(&self) -> &[Span] {
        if self.is_far() { &self.far } else { &self.near[..self.near_len] }
    }

    fn slice_mut(&mut self) -> &mut [Span] {
        if self.is_far() { &mut self.far } else { &mut self.near[..self.near_len] }
    }
}

/// Where a key stands that came before in the same object, of keys without escapes.
///
/// Few keys are compared each with each, lengths first; many are sorted, so that a hostile object
/// costs no more than its size and a logarithm.
fn duplicate(bytes: &[u8], keys: &mut [Span]) -> Option<usize> {
    const FEW: usize = 16;
    if keys.len() <= FEW {
        for (index, key) in keys.iter().enumerate() {
            let equal = |other: &&Span| {
                other.to - other.from == key.to - key.from
                    && bytes[other.range()] == bytes[key.range()]
            };
            if keys[..index].iter().any(|other| equal(&other)) {
                return Some(key.from as usize - 1);
            }
        }
        return None;
    }
    keys.sort_unstable_by(|a, b| bytes[a.range()].cmp(&bytes[b.range()]).then(a.from.cmp(&b.from)));
    keys.windows(2)
        .find(|pair| bytes[pair[0].range()] == bytes[pair[1].range()])
        .map(|pair| pair[1].from as usize - 1)
}

/// The same for an object in which a key has an escape.
#[cold]
fn duplicate_escaped(text: &str, keys: &[Span]) -> Option<usize> {
    let mut read: Vec<(Cow<'_, str>, u32)> = keys
        .iter()
        .map(|span| (unescape::unescape(text.get(span.range()).unwrap_or_default()), span.from))
        .collect();
    read.sort_unstable();
    read.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1 as usize - 1)
}
