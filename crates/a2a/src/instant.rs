//! Instants as texts: A2A's timestamps read, HTTP's dates written.

use convoke_model::UnixMillis;

/// Reads an RFC 3339 instant, such as `2026-11-20T09:54:00.5Z` or with an offset, to the
/// millisecond. `None` if it is none or lies before 1970 or after 9999.
pub(crate) fn parse(text: &str) -> Option<UnixMillis> {
    let bytes = text.as_bytes();
    let shape = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(shape(4, b"-") && shape(7, b"-") && shape(10, b"Tt") && shape(13, b":") && shape(16, b":"))
    {
        return None;
    }
    let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    let (hour, minute, second) =
        (digits(bytes, 11, 2)?, digits(bytes, 14, 2)?, digits(bytes, 17, 2)?);
    // A leap second is the last second that has a number.
    if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day == 0 || day > days_of_month(year, month) {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if shape(at, b".") {
        let fraction = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&fraction) {
            return None;
        }
        for place in 0..3 {
            millis *= 10;
            if place < fraction {
                millis += i64::from(bytes[at + 1 + place] - b'0');
            }
        }
        at += 1 + fraction;
    }
    let offset = match bytes.get(at..)? {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(bytes, at + 1, 2)?, digits(bytes, at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'+' { 60 } else { -60 }
        }
        _ => return None,
    };
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second.min(59)
            - offset;
    u64::try_from(seconds * 1000 + millis).ok().map(UnixMillis)
}

/// Writes an instant as HTTP does, to the second: `Fri, 20 Nov 2026 09:54:00 GMT` (RFC 9110
/// §5.6.7).
pub(crate) fn http_date(instant: UnixMillis) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = instant.to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let weekday = usize::try_from(instant.0 / 86_400_000 % 7).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().unwrap_or(1).saturating_sub(1);
    format!(
        "{}, {} {} {} {} GMT",
        DAYS[weekday],
        part(8, 10),
        MONTHS.get(month).unwrap_or(&MONTHS[0]),
        part(0, 4),
        part(11, 19)
    )
}

fn digits(bytes: &[u8], at: usize, length: usize) -> Option<i64> {
    bytes.get(at..at + length)?.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date that is not before it.
///
/// Source: the `days_from_civil` algorithm of H. Hinnant; the year begins in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00.000Z", Some(951_782_400_000)),
            ("2026-12-31T23:59:59.001Z", Some(1_798_761_599_001)),
            ("2026-12-31T23:59:59.0019999Z", Some(1_798_761_599_001)),
            ("2027-01-01T01:59:59.1+02:00", Some(1_798_761_599_100)),
            ("2026-12-31t21:59:59.10-02:00", Some(1_798_761_599_100)),
            ("2026-12-31T23:59:60Z", Some(1_798_761_599_000)),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:00+01:00", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-12-31 23:59:59Z", None),
            ("2026-12-31T23:59:59", None),
            ("2026-12-31T23:59:59.Z", None),
            ("2026-12-31T23:59:59Zx", None),
            ("2026-12-31T23:59:59+0200", None),
            ("2026-12-31T+3:59:59Z", None),
            ("", None),
            ("é26-12-31T23:59:59Z", None),
        ] {
            assert_eq!(parse(text), millis.map(UnixMillis), "{text}");
        }
    }

    #[test]
    fn timestamps_read_back() {
        for day in 0..60_000 {
            let instant = UnixMillis(day * 86_400_000 + 1234);
            assert_eq!(parse(&instant.to_string()), Some(instant));
        }
    }

    #[test]
    fn http_dates_name_the_day() {
        // The example of RFC 9110.
        let instant = parse("1994-11-06T08:49:37Z").unwrap();
        assert_eq!(http_date(instant), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(UnixMillis(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
