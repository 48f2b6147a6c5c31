//! A walk over one HPACK header block that overwrites what is invalid in `:authority`.

/// The name that is looked for, where a block spells it out.
const AUTHORITY: &[u8; 10] = b":authority";

/// The entry of HPACK's static table whose name is `:authority`. Source: RFC 7541, appendix A.
const AUTHORITY_INDEX: u32 = 1;

/// What an invalid byte becomes.
const REPLACEMENT: u8 = b'-';

/// A position in a header block. Only literals hold text; a text that is Huffman-coded is left as
/// it is, since neither C core nor Java codes this one, and an index cannot be invalid.
#[derive(Debug, Default)]
pub(super) struct HeaderBlock {
    place: Place,
}

#[derive(Debug, Clone, Copy, Default)]
enum Place {
    /// A representation begins.
    #[default]
    Start,
    /// More of a number that decides nothing but where it ends.
    Number(Number),
    /// More of the index of a literal's name.
    NameIndex(Number),
    /// A text begins: the name of a literal.
    NameStart,
    /// More of the length of a name.
    NameLength(Number),
    /// So many bytes of a name come, and so many were those of the name that is looked for.
    Name { left: u32, alike: Option<usize> },
    /// A text begins: the value of a literal.
    ValueStart { authority: bool },
    /// More of the length of a value.
    ValueLength { number: Number, authority: bool },
    /// So many bytes of a value come.
    Value { left: u32, authority: bool, colon: bool },
}

/// A number that goes on. Source: RFC 7541 §5.1.
#[derive(Debug, Clone, Copy)]
struct Number {
    value: u32,
    shift: u32,
}

impl Number {
    /// The number whose first byte's lowest `bits` these are; `Err` if it goes on.
    fn begin(byte: u8, bits: u32) -> Result<u32, Self> {
        let mask = (1_u32 << bits) - 1;
        match u32::from(byte) & mask {
            value if value < mask => Ok(value),
            value => Err(Self { value, shift: 0 }),
        }
    }

    /// Takes one more byte. `None` if the number is larger than any that means something.
    fn more(self, byte: u8) -> Option<Result<u32, Self>> {
        // Four more bytes hold more than a header block may have; more of them are an attack.
        if self.shift > 21 {
            return None;
        }
        let value = self.value.checked_add(u32::from(byte & 0x7f) << self.shift)?;
        Some(if byte & 0x80 == 0 { Ok(value) } else { Err(Self { value, shift: self.shift + 7 }) })
    }
}

impl HeaderBlock {
    /// Takes the next bytes of the block, and says whether they can be a part of one.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) -> bool {
        while !bytes.is_empty() {
            let Some(taken) = self.step(bytes) else { return false };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
        true
    }

    /// Takes at least one of `bytes`, which are not empty, and says how many.
    fn step(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let first = bytes[0];
        self.place = match self.place {
            Place::Start => start(first),
            Place::Number(number) => match number.more(first)? {
                Ok(_) => Place::Start,
                Err(number) => Place::Number(number),
            },
            Place::NameIndex(number) => match number.more(first)? {
                Ok(index) => after_index(index),
                Err(number) => Place::NameIndex(number),
            },
            Place::NameStart => match Number::begin(first, 7) {
                Ok(length) => name(length, is_huffman(first)),
                // Not the name that is looked for: it is longer.
                Err(number) => Place::NameLength(number),
            },
            Place::NameLength(number) => match number.more(first)? {
                Ok(length) => name(length, true),
                Err(number) => Place::NameLength(number),
            },
            Place::Name { left, alike } => return Some(self.name(bytes, left, alike)),
            Place::ValueStart { authority } => {
                let authority = authority && !is_huffman(first);
                match Number::begin(first, 7) {
                    Ok(length) => value(length, authority),
                    Err(number) => Place::ValueLength { number, authority },
                }
            }
            Place::ValueLength { number, authority } => match number.more(first)? {
                Ok(length) => value(length, authority),
                Err(number) => Place::ValueLength { number, authority },
            },
            Place::Value { left, authority, colon } => {
                return Some(self.value(bytes, left, authority, colon));
            }
        };
        Some(1)
    }

    fn name(&mut self, bytes: &[u8], left: u32, alike: Option<usize>) -> usize {
        let taken = super::at_most(left, bytes);
        let part = &bytes[..taken as usize];
        let alike = alike.and_then(|from| {
            let end = from + part.len();
            (AUTHORITY.get(from..end) == Some(part)).then_some(end)
        });
        self.place = match left - taken {
            0 => Place::ValueStart { authority: alike == Some(AUTHORITY.len()) },
            left => Place::Name { left, alike },
        };
        taken as usize
    }

    fn value(&mut self, bytes: &mut [u8], left: u32, authority: bool, mut colon: bool) -> usize {
        let taken = super::at_most(left, bytes);
        if authority {
            for byte in &mut bytes[..taken as usize] {
                // One colon may come before a port.
                let port = *byte == b':' && !colon;
                colon |= port;
                if !port && !is_plain(*byte) {
                    *byte = REPLACEMENT;
                }
            }
        }
        self.place = match left - taken {
            0 => Place::Start,
            left => Place::Value { left, authority, colon },
        };
        taken as usize
    }
}

/// The kinds of representations. Source: RFC 7541 §6.
fn start(first: u8) -> Place {
    let skipped = |bits| match Number::begin(first, bits) {
        Ok(_) => Place::Start,
        Err(number) => Place::Number(number),
    };
    let literal = |bits| match Number::begin(first, bits) {
        Ok(index) => after_index(index),
        Err(number) => Place::NameIndex(number),
    };
    match first {
        // An indexed field.
        0x80.. => skipped(7),
        // A literal that is added to the table.
        0x40.. => literal(6),
        // A new size of the table.
        0x20.. => skipped(5),
        // A literal that is not added.
        _ => literal(4),
    }
}

/// A literal's name is in a table, or is spelled out if the index is zero.
fn after_index(index: u32) -> Place {
    match index {
        0 => Place::NameStart,
        index => Place::ValueStart { authority: index == AUTHORITY_INDEX },
    }
}

fn name(length: u32, other: bool) -> Place {
    match length {
        0 => Place::ValueStart { authority: false },
        left => {
            let possible = !other && left as usize == AUTHORITY.len();
            Place::Name { left, alike: possible.then_some(0) }
        }
    }
}

fn value(length: u32, authority: bool) -> Place {
    match length {
        0 => Place::Start,
        left => Place::Value { left, authority, colon: false },
    }
}

/// Whether a text that begins so is Huffman-coded.
fn is_huffman(first: u8) -> bool {
    first & 0x80 != 0
}

/// Whether a byte may be anywhere in the name of a host. Source: RFC 3986 §3.2.2, `reg-name`
/// without percent-encoding.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}
