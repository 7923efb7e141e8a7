//! Moments as A2A and HTTP write them, in UTC: `2026-11-28T05:40:00.000Z` and `Sat, 28 Nov 2026 05:40:00 GMT`.

use protocol::Timestamp;

const DAY: u64 = 86_400_000;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The longest text that is looked at: nanoseconds and an offset.
const MAX_TEXT: usize = 40;

/// As JSON has it.
pub(super) fn iso(at: Timestamp) -> String {
    let (year, month, day) = date(at.0 / DAY);
    let (hour, minute, second) = time(at);
    let millis = at.0 % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// As a header has it.
pub(super) fn http(at: Timestamp) -> String {
    let days = at.0 / DAY;
    let ((year, month, day), (hour, minute, second)) = (date(days), time(at));
    let weekday = WEEKDAYS.get((days % 7) as usize).copied().unwrap_or_default();
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// What JSON says: RFC 3339 with or without a fraction, in UTC or with an offset. Nothing before 1970.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    if text.len() > MAX_TEXT || !text.is_ascii() {
        return None;
    }
    let (day, rest) = text.split_once(['T', 't', ' '])?;
    let mut day = day.splitn(3, '-').map(number);
    let (year, month, day) = (day.next()??, day.next()??, day.next()??);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    number(fraction)?;
    let millis = number(&format!("{fraction:0<3}")[..3])?;
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !fits {
        return None;
    }
    let seconds = (days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second;
    let local = i64::try_from(seconds * 1000 + millis).ok()?;
    u64::try_from(local - offset(zone)?).ok().map(Timestamp)
}

/// Milliseconds that a zone is before UTC.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' => return (zone.len() == 1).then_some(0),
        b'+' => 1,
        _ => -1,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let minutes = number(hours)? * 60 + number(minutes)?;
    Some(sign * i64::try_from(minutes).ok().filter(|minutes| *minutes < 24 * 60)? * 60_000)
}

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn time(at: Timestamp) -> (u64, u64, u64) {
    let seconds = at.0 / 1000;
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn length(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between the first of January 1970 and a date.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    years + (1..month).map(|month| length(year, month)).sum::<u64>() + day - 1
}

/// The date so many days after the first of January 1970; from the year 10000 on, its first day.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while year < 10_000 && days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days >= length(year, month) {
        days -= length(year, month);
        month += 1;
    }
    (year, month, days.min(30) + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_as_others_write_them() {
        let at = Timestamp(1_795_844_400_123);
        assert_eq!(
            (iso(at).as_str(), http(at).as_str()),
            ("2026-11-28T05:40:00.123Z", "Sat, 28 Nov 2026 05:40:00 GMT")
        );
        assert_eq!(http(Timestamp(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso(Timestamp(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_others_write_is_read() {
        let read = |text: &str| parse(text).map(|at| at.0);
        assert_eq!(read("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(read("2000-02-29T01:30:00.5+01:30"), Some(951_782_400_500));
        assert_eq!(read("2000-02-28T23:00:00.123456789-01:00"), Some(951_782_400_123));
        for odd in [
            "",
            "now",
            "2000-02-29",
            "2000-13-01T00:00:00Z",
            "2000-02-29T00:00:00",
            "1960-01-01T00:00:00Z",
            "2000-02-29T24:00:00Z",
            "2000-02-29T00:00:00.xZ",
            "2000-02-29T00:00:00+99:00",
            "+2000-1-1T0:0:0Z",
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_survives_its_text(at in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(parse(&iso(Timestamp(at))), Some(Timestamp(at)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,45}") {
            parse(&text);
        }
    }
}
