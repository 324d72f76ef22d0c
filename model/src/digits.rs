//! Numbers out of text, eight digits at a time.
//!
//! A venue's frame is half digits. Eight of them fit into a word, where three multiplications read them at once;
//! everything here is that trick, and what it cannot do goes the long way through [`Decimal::parse`].

use crate::Decimal;

/// A one in every byte.
pub const LOW: u64 = 0x0101_0101_0101_0101;
/// The high bit of every byte.
pub const HIGH: u64 = 0x8080_8080_8080_8080;

/// The first eight bytes, the first of them lowest; zeros beyond the end of the text.
#[inline(always)]
pub fn eight(text: &[u8]) -> u64 {
    text.first_chunk::<8>().map_or_else(|| fewer(text), |bytes| u64::from_le_bytes(*bytes))
}

#[inline(never)]
fn fewer(text: &[u8]) -> u64 {
    text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// How many of the lowest bytes are digits.
#[inline(always)]
pub fn leading_digits(word: u64) -> usize {
    // A byte above '9' carries into its high bit, one below '0' borrows from it; both spoil only bytes above it.
    let other = (word.wrapping_add(LOW * 0x46) | word.wrapping_sub(LOW * 0x30)) & HIGH;
    other.trailing_zeros() as usize / 8
}

/// The number that the lowest `count` bytes, digits all, spell. Three multiplications for up to eight digits.
#[inline(always)]
pub fn spelled(word: u64, count: usize) -> u64 {
    if count == 0 {
        return 0;
    }
    let digits = word.wrapping_sub(LOW * 0x30) << (64 - 8 * count);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let (even, odd) = (pairs & 0x0000_00FF_0000_00FF, pairs >> 16 & 0x0000_00FF_0000_00FF);
    even.wrapping_mul(0x000F_4240_0000_0064).wrapping_add(odd.wrapping_mul(0x0000_2710_0000_0001)) >> 32
}

/// Powers of ten.
pub const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Reads plain digits with at most one point, 18 digits in all and at most 12 behind the point, without a
/// sign: almost every number on the wire. Hands back what follows them.
#[inline(always)]
pub fn short(text: &[u8]) -> Option<(Decimal, &[u8])> {
    // Most have at most seven digits before the point and eight behind it: a word each.
    let word = eight(text);
    let digits = leading_digits(word);
    if (1..8).contains(&digits)
        && let Some((b'.', behind)) = text.get(digits..)?.split_first()
    {
        let fraction = eight(behind);
        let places = leading_digits(fraction);
        let rest = behind.get(places..)?;
        if places > 0 && !(places == 8 && rest.first().is_some_and(u8::is_ascii_digit)) {
            let number = spelled(word, digits).wrapping_mul(POWERS[places]).wrapping_add(spelled(fraction, places));
            return Some((units(number, POWERS[12 - places]), rest));
        }
    }
    longer(text)
}

#[inline(never)]
fn longer(text: &[u8]) -> Option<(Decimal, &[u8])> {
    let (whole, digits) = run(text);
    let rest = text.get(digits..)?;
    let Some((b'.', behind)) = rest.split_first() else {
        return (1..=18).contains(&digits).then(|| (units(whole, POWERS[12]), rest));
    };
    let (fraction, places) = run(behind);
    if digits == 0 || places == 0 || places > 12 || digits + places > 18 {
        return None;
    }
    // Both have at most 18 digits together, so the sum fits.
    let number = whole.wrapping_mul(POWERS[places]).wrapping_add(fraction);
    Some((units(number, POWERS[12 - places]), behind.get(places..)?))
}

/// The digits that a text begins with: what they spell, modulo 2⁶⁴, and how many they are.
#[inline(always)]
fn run(text: &[u8]) -> (u64, usize) {
    let (mut value, mut length) = (0_u64, 0);
    loop {
        let word = eight(&text[length..]);
        let count = leading_digits(word);
        value = value.wrapping_mul(POWERS[count]).wrapping_add(spelled(word, count));
        length += count;
        if count < 8 {
            return (value, length);
        }
    }
}

/// A number of at most 18 digits times a power of ten, in units of 10⁻¹².
#[inline(always)]
fn units(number: u64, power: u64) -> Decimal {
    Decimal::from_units((u128::from(number) * u128::from(power)) as i128)
}

/// The whole number of at most 18 digits that a text is; `None` for any other text.
#[inline]
pub fn whole(text: &[u8]) -> Option<i64> {
    let (value, length) = run(text);
    (length == text.len() && (1..=18).contains(&length)).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn a_whole_number_is_what_its_digits_say(text in "[0-9]{0,20}[a:/ ]?[0-9]{0,3}") {
            let expected = text.parse::<i64>().ok().filter(|_| text.len() <= 18);
            prop_assert_eq!(whole(text.as_bytes()), expected);
        }
    }
}
