//! Times and durations as ISO 8601 writes them.

use std::time::Duration;

const DAY: i64 = 86_400;

/// Milliseconds since the epoch of `2026-01-31T18:00:00.000`; seconds and what is behind them may be left out. UTC, unless a zone
/// stands behind: `Z`, `+01:00` or `+0100`.
pub(crate) fn datetime_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.split('-').map(|part| number(part, 4));
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if date.next().is_some() || !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    let (time, zone) = match rest.find(['Z', '+', '-']) {
        Some(at) => rest.split_at_checked(at)?,
        None => (rest, "Z"),
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
    if time.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    Some(seconds * 1000 + i64::try_from(nanoseconds(fraction)? / 1_000_000).ok()?)
}

/// `P1DT2H30M0.5S`: days, hours, minutes and seconds, each once and in this order.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (text.strip_prefix('P')?, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    for (mut rest, units) in [(days, &[('D', 86_400)][..]), (time, &[('H', 3600), ('M', 60), ('S', 1)])] {
        for (unit, seconds) in units {
            let Some((amount, behind)) = rest.split_once(*unit) else { continue };
            let (whole, fraction) = match amount.split_once('.') {
                Some((whole, fraction)) if *unit == 'S' => (whole, fraction),
                Some(_) => return None,
                None => (amount, "0"),
            };
            let whole = u64::try_from(number(whole, 18)?).ok()?.checked_mul(*seconds)?;
            total = total.checked_add(Duration::new(whole, u32::try_from(nanoseconds(fraction)?).ok()?))?;
            rest = behind;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(total)
}

/// A whole number of so many digits at most.
fn number(text: &str, digits_max: usize) -> Option<i64> {
    let is_number = (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Of the digits behind the point; those behind the ninth do not count.
fn nanoseconds(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<9}").get(..9)?.parse().ok()
}

/// What a zone is ahead of UTC.
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, zone) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(zone), _) => (1, zone),
        (None, Some(zone)) => (-1, zone),
        (None, None) => return None,
    };
    let (hours, minutes) = match zone.split_once(':') {
        Some(both) => both,
        None if zone.len() == 4 => zone.split_at_checked(2)?,
        None => (zone, "0"),
    };
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours <= 18 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_utc_unless_it_has_a_zone() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000", 0),
            ("2000-02-29T12:30", 951_827_400_000),
            ("2026-01-31T18:00:00.25", 1_769_882_400_250),
            ("2026-01-31T18:00:00Z", 1_769_882_400_000),
            ("2026-01-31T19:00:00+01:00", 1_769_882_400_000),
            ("2026-01-31T12:30:00-0530", 1_769_882_400_000),
            ("1969-12-31T23:59:59", -1000),
        ] {
            assert_eq!(datetime_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-02-29T00:00",
            "2026-13-01T00:00",
            "2026-01-00T00:00",
            "2026-01-31T24:00",
            "2026-01-31T18",
            "2026-01-31T18:00:00.",
            "2026-01-31T18:00:00+",
            "2026-01-31T18:00:00+19:00",
            "x-y-zT0:0",
        ] {
            assert_eq!(datetime_ms(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_has_days_hours_minutes_and_seconds() {
        for (text, ms) in [("P1D", 86_400_000), ("PT2H30M", 9_000_000), ("P1DT0.5S", 86_400_500), ("PT0S", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "P", "PT", "1D", "P1", "P1H", "PT1D", "PT1S1M", "PT1.5M", "PT-1S", "P1DT", "PT1S2", "P9Y"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
