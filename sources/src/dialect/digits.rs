//! The numbers of a frame: decimals and whole numbers where the scanner has found them.

use model::Decimal;
use model::decimal::DecimalError;
use model::digits::{POWERS, eight, leading_digits, short, spelled};

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

#[cfg(test)]
mod tests {
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
    }
}
