//! The walk itself: a stack of open objects and arrays, no recursion.

use super::keys::{Keys, Span, duplicate, duplicate_escaped};
use super::{ScanError, ScanErrorKind, ScanLimits};
use crate::unescape;

const DEPTH: usize = ScanLimits::DEPTH_CEILING;

pub(super) struct Scanner<'a> {
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

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, limits: &'a ScanLimits) -> Self {
        let open = [Frame::NONE; DEPTH];
        Self { text, bytes: text.as_bytes(), at: 0, limits, depth: 0, open, keys: Keys::new() }
    }

    /// Reads exactly one value and nothing behind it.
    pub(super) fn document(&mut self) -> Result<(), ScanError> {
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
pub(crate) fn plain_run(bytes: &[u8]) -> usize {
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
