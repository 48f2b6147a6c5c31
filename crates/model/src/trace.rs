//! Where a request stands in a trace that spans several agents, as W3C Trace Context has it.

use std::fmt;

/// The name of the header that carries a [`TraceContext`]. Source: W3C Trace Context §3.2.
pub const TRACEPARENT: &str = "traceparent";

/// One span's place in a trace: what a caller hands to the agent that it calls.
///
/// It says nothing of who calls; a peer may write whatever it likes here, and the worst that comes
/// of it is a log line under another trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The flag of a trace that is recorded. Source: W3C Trace Context §3.2.2.5.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// The first span of a trace. Identifiers come in from outside, because this crate has no
    /// source of random numbers; zero, which the specification forbids, becomes one.
    #[must_use]
    pub fn root(trace_id: u128, span_id: u64, sampled: bool) -> Self {
        Self { trace_id: trace_id.max(1), span_id: span_id.max(1), flags: u8::from(sampled) }
    }

    /// A span of the same trace under another identifier.
    #[must_use]
    pub fn child(self, span_id: u64) -> Self {
        Self { span_id: span_id.max(1), ..self }
    }

    /// Reads the value of a `traceparent` header; `None` if it is none that we understand, and then
    /// a trace of our own begins. Source: W3C Trace Context §3.2.2 and §4.3.
    ///
    /// A version after 00 may say more behind the flags; what it says before them is read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex(bytes.get(..2)?)?;
        let whole = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        if !whole || !dashes {
            return None;
        }
        let trace_id = hex(bytes.get(3..35)?)?;
        let span_id = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(bytes.get(53..55)?)?).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            flags: flags & SAMPLED,
        })
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span.
    #[must_use]
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether whoever began the trace records it.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Writes the value of a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Lower-case hexadecimal digits alone: the specification allows no others.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_reads_back() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert!(context.is_sampled());
        let child = context.child(7);
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        let root = TraceContext::root(0, 0, false).to_string();
        assert_eq!(TraceContext::parse(&root), Some(TraceContext::root(1, 1, false)));
    }

    #[test]
    fn unknown_flags_and_later_versions_are_read_as_the_specification_says() {
        let check = |text: &str, expected: Option<&str>| {
            let read = TraceContext::parse(text).map(|context| context.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check(&GOOD.replace("-01", "-ff"), Some(GOOD));
        check(&GOOD.replacen("00", "01", 1), Some(GOOD));
        check(&format!("{}-more", GOOD.replacen("00", "01", 1)), Some(GOOD));
        check(&format!("{}more", GOOD.replacen("00", "01", 1)), None);
    }

    #[test]
    fn anything_else_is_no_context() {
        for text in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf9", "4bfg"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é1",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
