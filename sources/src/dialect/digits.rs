//! The numbers of a frame: decimals and whole numbers where the scanner has found them.

use model::Decimal;
use model::decimal::DecimalError;
use model::digits::{POWERS, eight, leading_digits, short, spelled};
use model::time::Micros;

use super::json::Value;

/// Reads a decimal number: the text of a JSON number, or of a venue's quoted number.
///
/// # Errors
/// As [`Decimal::parse`].
#[inline]
pub fn decimal(text: &[u8], value: Value) -> Result<Decimal, DecimalError> {
    let (from, behind) = (&text[value.start as usize..], &text[value.end as usize..]);
    match short(from) {
        Some((decimal, rest)) if rest.len() == behind.len() => Ok(decimal),
        _ => Decimal::parse(value.of(text)),
    }
}

/// Reads a whole number of 64 bits with sign; `None` for any other text.
#[inline]
pub fn integer(text: &[u8], value: Value) -> Option<i64> {
    let digits = value.of(text);
    // A time in milliseconds has 13 digits: two words.
    if let (Some(first), 9..=15) = (digits.first_chunk::<8>(), digits.len()) {
        let (first, second) = (u64::from_le_bytes(*first), eight(&text[value.start as usize + 8..]));
        let rest = digits.len() - 8;
        if leading_digits(first) == 8 && leading_digits(second) >= rest {
            return Some((spelled(first, 8) * POWERS[rest] + spelled(second, rest)) as i64);
        }
    }
    std::str::from_utf8(digits).ok().filter(|t| !t.starts_with('+')).and_then(|t| t.parse().ok())
}

/// Reads a time as RFC 3339 writes it, `2021-04-17T16:43:37.075687Z`; digits finer than a microsecond are cut. `None` for any
/// other text, and for days and hours that the calendar does not have, among them leap seconds.
pub fn timestamp(text: &[u8]) -> Option<Micros> {
    let (whole, rest) = text.split_first_chunk::<19>()?;
    let [a, b, c, d, b'-', e, f, b'-', g, h, b'T' | b't', i, j, b':', k, l, b':', m, n] = *whole else { return None };
    let year = number(&[a, b, c, d])?;
    let [month, day, hour, minute, second] = [[e, f], [g, h], [i, j], [k, l], [m, n]].map(|digits| number(&digits));
    let (month, day, hour, minute, second) = (month?, day?, hour?, minute?, second?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.split_first()? {
        (b'.', behind) => behind.split_at(behind.iter().take_while(|byte| byte.is_ascii_digit()).count()),
        _ => (&rest[..0], rest),
    };
    if rest.first() == Some(&b'.') && fraction.is_empty() {
        return None;
    }
    let micros = (0..6).map(|at| fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'))).fold(0, |sum, digit| sum * 10 + digit);
    let offset = match *zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => {
            let (hours, minutes) = (number(&[a, b])?, number(&[c, d])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    // Years are counted from March, so that the leap day is their last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, years) = (years.div_euclid(400), years.rem_euclid(400));
    let days = era * 146_097 + years * 365 + years / 4 - years / 100 + (153 * months + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second - offset) * 1_000_000 + micros)
}

/// The number that a few digits spell.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::super::json::Token;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn reads_numbers_as_the_model_does(text in "-?[0-9]{0,20}[.]?[0-9]{0,16}(e[0-9]{1,2})?", before in "[0-9]{0,3}\"", after in "\"?[0-9]{0,9}") {
            let whole = format!("{before}{text}{after}");
            if after.starts_with('"') || after.is_empty() {
                let value = Value { token: Token::Text, start: before.len() as u32, end: (before.len() + text.len()) as u32 };
                prop_assert_eq!(decimal(whole.as_bytes(), value), Decimal::parse(text.as_bytes()));
                prop_assert_eq!(integer(whole.as_bytes(), value), text.parse::<i64>().ok());
            }
        }

        #[test]
        fn reads_times_as_the_calendar_has_them(
            year in 0..10_000, month in 0..14, day in 0..33, hour in 0..25, minute in 0..61, second in 0..60,
            fraction in "([.][0-9]{0,10})?", zone in "Z|[+-][01][0-9]:[0-6][0-9]|",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
            let expected = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros());
            prop_assert_eq!(timestamp(text.as_bytes()), expected, "{}", text);
        }
    }

    #[test]
    fn times_are_read_whole_or_not_at_all() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2021-04-17T16:43:37.075687Z", Some(1_618_677_817_075_687)),
            ("2026-08-12T19:27:48.098821666Z", Some(1_786_562_868_098_821)),
            ("2024-02-29T23:59:59.9+01:00", Some(1_709_247_599_900_000)),
            ("0001-01-01T00:00:00.000000Z", Some(-62_135_596_800_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-07-04T18:14:39", None),
            ("2023-07-04 18:14:39Z", None),
            ("2023-07-04T18:14:60Z", None),
            ("2023-07-04T18:14:39.Z", None),
            ("2023-07-04T18:14:39Zz", None),
            ("", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }
}
