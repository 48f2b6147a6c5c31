//! Instants as numbers; the clock is somebody else's.

use std::fmt;

/// An instant in milliseconds since 1970-01-01T00:00:00Z.
///
/// `Display` writes it as A2A's timestamps are: UTC, milliseconds, `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The instant `millis` later; at the end of time it stays there.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// The instant as text, to be written where a `String` would be one too many.
    #[must_use]
    pub fn to_text(self) -> TimestampText {
        TimestampText::of(self)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_text().as_str())
    }
}

impl serde::Serialize for UnixMillis {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.to_text().as_str())
    }
}

/// An instant as text, such as `2026-11-20T09:54:00.500Z`, without an allocation.
///
/// Years beyond 9999 have the digits that they need.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TimestampText {
    /// ASCII, written from its end; what comes before `from` is unused.
    bytes: [u8; Self::BYTES_MAX],
    from: u8,
}

impl TimestampText {
    /// Longest text: the last instant of 64 bits lies in the year 584556019, and behind the year
    /// come [`Self::TAIL`]'s bytes.
    const BYTES_MAX: usize = 9 + Self::TAIL.len();

    /// What comes behind the year.
    const TAIL: &'static [u8; 20] = b"-00-00T00:00:00.000Z";

    fn of(instant: UnixMillis) -> Self {
        let (days, of_day) = (instant.0 / 86_400_000, instant.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let mut text = Self { bytes: [b'0'; Self::BYTES_MAX], from: 0 };
        let year_end = Self::BYTES_MAX - Self::TAIL.len();
        text.bytes[year_end..].copy_from_slice(Self::TAIL);
        for (at, value) in [
            (1, month),
            (4, day),
            (7, of_day / 3_600_000),
            (10, of_day / 60_000 % 60),
            (13, of_day / 1000 % 60),
        ] {
            text.digits(year_end + at + 2, 2, value);
        }
        text.digits(Self::BYTES_MAX - 1, 3, of_day % 1000);
        let year_digits = if year > 9999 { year.ilog10() as usize + 1 } else { 4 };
        text.digits(year_end, year_digits, year);
        // At most the array's length.
        text.from = (year_end - year_digits) as u8;
        text
    }

    /// Writes the last `count` digits of `value` before `end`.
    fn digits(&mut self, end: usize, count: usize, mut value: u64) {
        for place in self.bytes[end - count..end].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits and punctuation are ASCII, so this never is an error.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The text as its bytes, which are ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.from)..]
    }
}

impl fmt::Debug for TimestampText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Year, month and day of a count of days since 1970-01-01.
///
/// Source: the `civil_from_days` algorithm of H. Hinnant, for days that are not negative. Eras are
/// 400 years; the year begins in March, so that the leap day is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_as_timestamps() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
            (u64::MAX, "584556019-04-03T14:25:51.615Z"),
        ] {
            assert_eq!(UnixMillis(millis).to_string(), text);
            assert_eq!(UnixMillis(millis).to_text().as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn every_instant_is_written_as_the_formatter_would() {
        // A step without a common factor with days or milliseconds visits every field's values.
        for step in 0..200_000_u64 {
            let instant = UnixMillis(step * 1_234_567_891);
            let (days, of_day) = (instant.0 / 86_400_000, instant.0 % 86_400_000);
            let (year, month, day) = civil(days);
            let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
            let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
            assert_eq!(
                instant.to_text().as_str(),
                format!(
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
                )
            );
        }
    }
}
