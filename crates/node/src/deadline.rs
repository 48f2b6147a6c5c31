//! Until when a caller waits, as it says itself: whoever works longer works for nobody.

use std::time::Duration;

use convoke_model::{Fault, FaultCode};
use http::HeaderMap;
use http::header::HeaderName;

/// The header by which a caller says how long it still waits.
///
/// Source: gRPC over HTTP/2, "Requests". The name is used on every wire, so that one word means one
/// thing.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits of a timeout. Source: as [`GRPC_TIMEOUT`].
const DIGITS_MAX: usize = 8;

/// How long the caller of a request with these headers still waits; `None` if it does not say.
///
/// # Errors
///
/// [`FaultCode::InvalidRequest`] if it cannot be read. Working on would be for nobody or against the
/// caller's will, and nothing tells which.
pub(crate) fn remaining(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let mut least = None;
    for value in headers.get_all(GRPC_TIMEOUT) {
        let said = parse(value.as_bytes()).ok_or_else(|| {
            Fault::new(
                FaultCode::InvalidRequest,
                "grpc-timeout is up to 8 digits and one of H, M, S, m, u and n, as in 500m",
            )
        })?;
        // Of several the shortest counts: a deadline may only shorten.
        least = Some(least.map_or(said, |least: Duration| least.min(said)));
    }
    Ok(least)
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Eight digits fit, and so do their hours in seconds.
    let count = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&'static str], expected: Result<Option<Duration>, FaultCode>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(GRPC_TIMEOUT, value.parse().unwrap());
        }
        assert_eq!(remaining(&headers).map_err(|fault| fault.code), expected, "{values:?}");
    }

    #[test]
    fn the_grammar_of_grpc_is_read_and_nothing_else() {
        let good = |duration| Ok(Some(duration));
        check(&[], Ok(None));
        check(&["1H"], good(Duration::from_secs(3600)));
        check(&["2M"], good(Duration::from_secs(120)));
        check(&["3S"], good(Duration::from_secs(3)));
        check(&["04m"], good(Duration::from_millis(4)));
        check(&["5u"], good(Duration::from_micros(5)));
        check(&["99999999n"], good(Duration::from_nanos(99_999_999)));
        check(&["99999999H"], good(Duration::from_secs(99_999_999 * 3600)));
        check(&["0S"], good(Duration::ZERO));
        check(&["5S", "4S"], good(Duration::from_secs(4)));
        for wrong in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "100000000S",
            "-1S",
            "+1S",
            "1 S",
            "1.5S",
            " 1S",
            "1S ",
            "1é",
        ] {
            check(&[wrong], Err(FaultCode::InvalidRequest));
        }
        check(&["5S", "x"], Err(FaultCode::InvalidRequest));
    }
}
