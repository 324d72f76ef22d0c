//! Exact decimals: what prices, sizes and rates are made of.
//!
//! A [`Decimal`] is a 128-bit integer of 10⁻¹² units, which is Arrow's `Decimal128(38, 12)`. Parsing
//! accepts exactly the numbers that fit and names the reason for the others; nothing is rounded unless
//! a function says so in its name.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DataType, i256};

/// Fraction digits of every decimal column.
pub const SCALE: i8 = 12;
/// Digits in all of every decimal column.
pub const PRECISION: u8 = 38;
/// The Arrow type of every decimal column.
pub const DATA_TYPE: DataType = DataType::Decimal128(PRECISION, SCALE);

const ONE: i128 = 1_000_000_000_000;
const MAX: i128 = 10_i128.pow(PRECISION as u32) - 1;
const POWERS: [i128; 13] = {
    let mut powers = [1; 13];
    let mut i = 1;
    while i < 13 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// An exact number with twelve fraction digits; its unit is that of the column it stands in.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(i128);

/// Why a text is not a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is no number.
    #[error("is not a decimal number")]
    Malformed,
    /// It has non-zero digits beyond the twelfth after the point.
    #[error("has more than 12 fraction digits")]
    TooFine,
    /// It has more than 26 digits before the point.
    #[error("does not fit into 26 integer digits")]
    TooLarge,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal(0);
    /// The greatest.
    pub const MAX: Decimal = Decimal(MAX);
    /// One.
    pub const ONE: Decimal = Decimal(ONE);

    /// The number of `units` of 10⁻¹², as Arrow stores it.
    pub const fn from_units(units: i128) -> Self {
        Decimal(units)
    }

    /// This number in units of 10⁻¹², as Arrow stores it.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// A whole number.
    pub const fn from_integer(value: i64) -> Self {
        Decimal(value as i128 * ONE)
    }

    /// Reads the text of a JSON number or of a venue's quoted number: an optional sign, digits, an
    /// optional point with digits, an optional exponent.
    ///
    /// # Errors
    /// See [`DecimalError`]; nothing is rounded, so trailing zeros beyond twelve digits are fine and
    /// any other digit there is [`DecimalError::TooFine`].
    pub fn parse(text: &[u8]) -> Result<Self, DecimalError> {
        Self::read(text, false)
    }

    /// As [`Self::parse`], but rounded half to even at the twelfth fraction digit: for figures that a venue worked out, whose
    /// last digits mean nothing.
    ///
    /// # Errors
    /// See [`DecimalError`].
    pub fn parse_rounded(text: &[u8]) -> Result<Self, DecimalError> {
        Self::read(text, true)
    }

    #[inline]
    fn read(text: &[u8], rounded: bool) -> Result<Self, DecimalError> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let units = Self::parse_short(digits).map_or_else(|| Self::parse_long(digits, rounded), Ok)?;
        Ok(Decimal(if negative { -units } else { units }))
    }

    /// Almost every number on the wire: at most 18 digits, of which at most 12 follow the point.
    /// `None` sends the rest the long way.
    #[inline]
    fn parse_short(digits: &[u8]) -> Option<i128> {
        if digits.is_empty() || digits.len() > 19 {
            return None;
        }
        let mut value = 0_u64;
        let mut point = None;
        for (i, &byte) in digits.iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                // At most 19 digits and a point: 18 or 19 digits stay below 2⁶⁴ - 1 ≈ 1.8 · 10¹⁹.
                value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            } else if byte == b'.' && point.is_none() && i > 0 {
                point = Some(i);
            } else {
                return None;
            }
        }
        let fraction = point.map_or(0, |at| digits.len() - at - 1);
        if fraction > 12 || (point.is_some() && fraction == 0) {
            return None;
        }
        Some(i128::from(value) * POWERS[12 - fraction])
    }

    #[cold]
    fn parse_long(text: &[u8], rounded: bool) -> Result<i128, DecimalError> {
        let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|&b| b == b'.') {
            Some(at) if at + 1 < mantissa.len() => (&mantissa[..at], &mantissa[at + 1..]),
            Some(_) => return Err(DecimalError::Malformed),
            None => (mantissa, &mantissa[..0]),
        };
        if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Err(DecimalError::Malformed);
        }
        // The digit at index i of the whole text stands for 10^(whole.len() - 1 - i + exponent).
        let mut units = 0_i128;
        // Of the digits that do not fit: the first, and whether there are others.
        let (mut first, mut others) = (0, false);
        for (i, digit) in whole.iter().chain(fraction).enumerate() {
            let digit = i128::from(digit - b'0');
            if digit == 0 {
                continue;
            }
            let power = whole.len() as i64 - 1 - i as i64 + exponent + i64::from(SCALE);
            if power < 0 {
                if !rounded {
                    return Err(DecimalError::TooFine);
                }
                if power == -1 {
                    first = digit
                } else {
                    others = true
                }
                continue;
            }
            let power = u32::try_from(power).ok().filter(|p| *p < u32::from(PRECISION)).ok_or(DecimalError::TooLarge)?;
            units = 10_i128.pow(power).checked_mul(digit).and_then(|d| units.checked_add(d)).ok_or(DecimalError::TooLarge)?;
        }
        units += i128::from(first > 5 || (first == 5 && (others || units % 2 == 1)));
        if units > MAX { Err(DecimalError::TooLarge) } else { Ok(units) }
    }

    /// The sum, or `None` where it has more than 38 digits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|u| u.abs() <= MAX).map(Decimal)
    }

    /// The difference, or `None` where it has more than 38 digits.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).filter(|u| u.abs() <= MAX).map(Decimal)
    }

    /// The product rounded half to even at the twelfth digit, or `None` where it does not fit.
    pub fn mul_rounded(self, other: Self) -> Option<Self> {
        round_units(i256::from_i128(self.0).wrapping_mul(i256::from_i128(other.0)), i256::from_i128(ONE))
    }

    /// The quotient rounded half to even at the twelfth digit; `None` for division by zero or where it
    /// does not fit.
    pub fn div_rounded(self, other: Self) -> Option<Self> {
        if other.0 == 0 {
            return None;
        }
        round_units(i256::from_i128(self.0).wrapping_mul(i256::from_i128(ONE)), i256::from_i128(other.0))
    }

    /// The exact product in units of 10⁻²⁴: what sums of price times quantity are kept in, so that they
    /// are rounded once, when they are shown, and not once a trade.
    pub fn mul_exact(self, other: Self) -> i256 {
        i256::from_i128(self.0).wrapping_mul(i256::from_i128(other.0))
    }

    /// A number of 10⁻²⁴ units rounded half to even at the twelfth digit, or `None` where it does not fit.
    pub fn from_exact_rounded(units: i256) -> Option<Self> {
        round_units(units, i256::from_i128(ONE))
    }

    /// `numerator / denominator` units, rounded half to even: how a number with more fraction digits than a
    /// column holds is fitted into it. `None` for division by zero or where it does not fit.
    pub fn from_quotient_rounded(numerator: i256, denominator: i256) -> Option<Self> {
        round_units(numerator, denominator)
    }

    /// A sum of products (10⁻²⁴ units) divided by `divisor`, rounded half to even at the twelfth digit:
    /// a volume-weighted mean. `None` for division by zero or where it does not fit.
    pub fn ratio_rounded(units: i256, divisor: Self) -> Option<Self> {
        if divisor.0 == 0 { None } else { round_units(units, i256::from_i128(divisor.0)) }
    }

    /// The nearest 64-bit float: for statistics (medians, scores), never for a price that is stored.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / ONE as f64
    }

    /// The decimal nearest to a statistic, rounded at the twelfth digit; `None` for what is not finite
    /// or does not fit.
    pub fn from_f64_rounded(value: f64) -> Option<Self> {
        let units = (value * ONE as f64).round();
        (units.is_finite() && units.abs() <= MAX as f64).then_some(Decimal(units as i128))
    }

    /// The magnitude.
    pub const fn abs(self) -> Self {
        Decimal(self.0.abs())
    }
}

/// `numerator / denominator`, rounded half to even, if it has at most 38 digits.
fn round_units(numerator: i256, denominator: i256) -> Option<Decimal> {
    match (numerator.to_i128(), denominator.to_i128()) {
        (Some(numerator), Some(denominator)) => round_short(numerator, denominator),
        _ => round_long(numerator, denominator),
    }
}

/// Almost every product of a price and a size: 38 digits are enough, and many times faster.
#[inline]
fn round_short(numerator: i128, denominator: i128) -> Option<Decimal> {
    let quotient = numerator.checked_div(denominator)?;
    let remainder = (numerator % denominator).unsigned_abs();
    let rest = denominator.unsigned_abs() - remainder;
    let away = if (numerator < 0) == (denominator < 0) { 1 } else { -1 };
    let rounded = if remainder > rest || (remainder == rest && quotient % 2 != 0) { quotient.checked_add(away)? } else { quotient };
    Some(Decimal(rounded)).filter(|d| d.0.unsigned_abs() <= MAX as u128)
}

fn round_long(numerator: i256, denominator: i256) -> Option<Decimal> {
    let quotient = numerator.checked_div(denominator)?;
    let remainder = numerator.checked_rem(denominator)?;
    let twice = remainder.wrapping_abs().checked_mul(i256::from_i128(2))?;
    let size = denominator.wrapping_abs();
    let odd = quotient.checked_rem(i256::from_i128(2))? != i256::ZERO;
    let away = if (numerator < i256::ZERO) == (denominator < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    let rounded = if twice > size || (twice == size && odd) { quotient.checked_add(away)? } else { quotient };
    rounded.to_i128().filter(|units| units.abs() <= MAX).map(Decimal)
}

fn parse_exponent(text: &[u8]) -> Result<i64, DecimalError> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse::<i16>().ok()).map(i64::from).ok_or(DecimalError::Malformed)
}

impl FromStr for Decimal {
    type Err = DecimalError;
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Decimal::parse(text.as_bytes())
    }
}

impl fmt::Display for Decimal {
    /// The shortest exact text: no trailing zeros after the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.0.unsigned_abs();
        // Almost every number fits into 64 bits, where division is fast.
        let (mut whole, mut fraction) = match u64::try_from(units) {
            Ok(units) => (u128::from(units / ONE as u64), units % ONE as u64),
            Err(_) => (units / ONE as u128, (units % ONE as u128) as u64),
        };
        // Digits from the right; a number has at most 39 and a point.
        let mut text = [b'0'; 40];
        let (mut start, mut end) = (text.len(), text.len());
        if fraction > 0 {
            for _ in 0..SCALE {
                start -= 1;
                text[start] = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
            end -= text.iter().rev().take_while(|digit| **digit == b'0').count();
            start -= 1;
            text[start] = b'.';
        }
        loop {
            start -= 1;
            match u64::try_from(whole) {
                Ok(small) => (text[start], whole) = (b'0' + (small % 10) as u8, u128::from(small / 10)),
                Err(_) => (text[start], whole) = (b'0' + (whole % 10) as u8, whole / 10),
            }
            if whole == 0 {
                break;
            }
        }
        f.pad_integral(self.0 >= 0, "", std::str::from_utf8(&text[start..end]).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, DecimalError> {
        text.parse::<Decimal>().map(|d| d.to_string())
    }

    #[test]
    fn reads_what_venues_send() {
        for (text, expected) in [
            ("0", "0"),
            ("61837.63000000", "61837.63"),
            ("-0.00010000", "-0.0001"),
            ("1e-7", "0.0000001"),
            ("3.4E-05", "0.000034"),
            ("99999999999999999999999999.999999999999", "99999999999999999999999999.999999999999"),
            ("0.1234567890120000", "0.123456789012"),
            ("18446744073709551615", "18446744073709551615"),
            ("1E3", "1000"),
            ("-0", "0"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn shows_every_number_as_it_is_read() {
        for units in [
            0,
            1,
            -1,
            10,
            ONE,
            -ONE,
            ONE / 10,
            MAX,
            -MAX,
            i128::from(u64::MAX),
            i128::from(u64::MAX) + 1,
            10_i128.pow(30),
            i128::MAX,
            i128::MIN,
        ] {
            let shown = Decimal(units).to_string();
            let expected = bigger_text(units);
            assert_eq!(shown, expected);
            if units.abs_diff(0) <= MAX as u128 {
                assert_eq!(shown.parse(), Ok(Decimal(units)), "{shown}");
            }
        }
        assert_eq!(format!("{:>8}|{:<8}|{:+}", Decimal::ONE, Decimal(-ONE / 4), Decimal::ZERO), "       1|-0.25   |+0");
    }

    /// The same by way of text alone.
    fn bigger_text(units: i128) -> String {
        let digits = format!("{:013}", units.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - 12);
        let text = format!("{whole}.{fraction}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if units < 0 { format!("-{text}") } else { text.to_owned() }
    }

    #[test]
    fn names_the_reason_for_what_it_refuses() {
        for text in ["", "-", ".", "1.", ".5", "1.2.3", "NaN", "1e", "0x1", " 1", "1,5", "--1"] {
            assert_eq!(parsed(text), Err(DecimalError::Malformed), "{text:?}");
        }
        assert_eq!(parsed("0.1234567890123"), Err(DecimalError::TooFine));
        assert_eq!(parsed("1e-13"), Err(DecimalError::TooFine));
        assert_eq!(parsed("100000000000000000000000000"), Err(DecimalError::TooLarge));
        assert_eq!(parsed("1e30000"), Err(DecimalError::TooLarge));
    }

    #[test]
    fn rounds_half_to_even_and_only_where_said() {
        let d = |t: &str| t.parse::<Decimal>().unwrap();
        assert_eq!(d("0.000000000001").mul_rounded(d("0.5")).unwrap().to_string(), "0");
        assert_eq!(d("0.000000000003").mul_rounded(d("0.5")).unwrap().to_string(), "0.000000000002");
        assert_eq!(d("-2").div_rounded(d("3")).unwrap().to_string(), "-0.666666666667");
        assert_eq!(d("1").div_rounded(Decimal::ZERO), None);
        assert_eq!(d("99999999999999999999999999").mul_rounded(d("10")), None);
        let exact = d("61837.63").mul_exact(d("0.02"));
        assert_eq!(Decimal::from_exact_rounded(exact).unwrap().to_string(), "1236.7526");
        assert_eq!(Decimal::ratio_rounded(exact, d("0.02")).unwrap().to_string(), "61837.63");
    }

    #[test]
    fn the_short_way_to_round_agrees_with_the_long_one() {
        let numbers = [0, 1, 2, 3, 5, 7, 10, ONE - 1, ONE, ONE / 2, 3 * ONE / 2, MAX, MAX - 1, MAX / 2, i128::MAX, i128::MAX / 3];
        let signed = || numbers.iter().flat_map(|n| [*n, -*n]);
        for numerator in signed() {
            for denominator in signed() {
                let long = round_long(i256::from_i128(numerator), i256::from_i128(denominator));
                assert_eq!(round_short(numerator, denominator), long, "{numerator} / {denominator}");
            }
        }
    }
}
