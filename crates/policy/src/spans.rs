//! Where something stands in a policy, and its text.

use regorus::unstable::Span;

/// A place in the policy's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column, in characters, from 1.
    pub column: u32,
}

/// Where `span` begins. The engine's own line and column are those of its operator or last name.
pub(crate) fn place(span: &Span) -> Place {
    let before = span.source.contents().get(..begin(span)).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let from_one = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    Place { line: from_one(line), column: from_one(column) }
}

/// The text of a span with the quotes of a text that stands first or last in it, which the engine's
/// spans leave out.
pub(crate) fn text(span: &Span) -> &str {
    let whole = span.source.contents();
    let mut end = usize::try_from(span.end).unwrap_or(usize::MAX);
    if is_quote(whole.as_bytes().get(end)) {
        end += 1;
    }
    whole.get(begin(span)..end).unwrap_or_else(|| span.text())
}

fn begin(span: &Span) -> usize {
    let begin = usize::try_from(span.start).unwrap_or(usize::MAX);
    match begin.checked_sub(1) {
        Some(before) if is_quote(span.source.contents().as_bytes().get(before)) => before,
        _ => begin,
    }
}

fn is_quote(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'"' | b'`'))
}
