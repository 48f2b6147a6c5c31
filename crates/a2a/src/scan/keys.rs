//! The keys of open objects, and whether one comes twice.

use std::borrow::Cow;

use crate::unescape;

/// The text of a key, as a range of the document's bytes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.from as usize..self.to as usize
    }
}

/// The keys of all open objects: in place while they are few, on the heap after that.
pub(super) struct Keys {
    near: [Span; Self::NEAR],
    near_len: usize,
    far: Vec<Span>,
}

impl Keys {
    const NEAR: usize = 64;

    pub(super) fn new() -> Self {
        Self { near: [Span { from: 0, to: 0 }; Self::NEAR], near_len: 0, far: Vec::new() }
    }

    /// Whether the keys have moved to the heap, where they then stay.
    fn is_far(&self) -> bool {
        self.far.capacity() > 0
    }

    pub(super) fn len(&self) -> usize {
        if self.is_far() { self.far.len() } else { self.near_len }
    }

    pub(super) fn push(&mut self, span: Span) {
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

    pub(super) fn truncate(&mut self, len: usize) {
        if self.is_far() { self.far.truncate(len) } else { self.near_len = len }
    }

    pub(super) fn slice(&self) -> &[Span] {
        if self.is_far() { &self.far } else { &self.near[..self.near_len] }
    }

    pub(super) fn slice_mut(&mut self) -> &mut [Span] {
        if self.is_far() { &mut self.far } else { &mut self.near[..self.near_len] }
    }
}

/// Where a key stands that came before in the same object, of keys without escapes.
///
/// Few keys are compared each with each, lengths first; many are sorted, so that a hostile object
/// costs no more than its size and a logarithm.
pub(super) fn duplicate(bytes: &[u8], keys: &mut [Span]) -> Option<usize> {
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
pub(super) fn duplicate_escaped(text: &str, keys: &[Span]) -> Option<usize> {
    let mut read: Vec<(Cow<'_, str>, u32)> = keys
        .iter()
        .map(|span| (unescape::unescape(text.get(span.range()).unwrap_or_default()), span.from))
        .collect();
    read.sort_unstable();
    read.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1 as usize - 1)
}
