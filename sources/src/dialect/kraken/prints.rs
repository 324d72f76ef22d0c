//! Trades of protocols that send them as arrays, and times in seconds.

use model::Decimal;
use model::time::{Micros, SECOND};

use crate::dialect::digits::integer;
use crate::dialect::fields::{Refusal, decimal, excerpt, malformed, refuse};
use crate::dialect::json::{Scanner, Token, Value};

/// One trade, `["price","size",time,"b" or "s",…]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Print {
    pub(super) price: Decimal,
    pub(super) quantity: Decimal,
    pub(super) time: Micros,
    /// The taker's side.
    pub(super) side: &'static str,
    /// The venue's number of it, which answers of REST have as their seventh element.
    pub(super) id: Option<i64>,
    /// Its place in the frame, from 0.
    pub(super) place: usize,
}

/// Reads a list of trades, in the order of time.
pub(super) fn read(text: &[u8], list: Value, prints: &mut Vec<Print>) -> Result<(), Refusal> {
    prints.clear();
    if list.token != Token::Array {
        return Err(refuse("wrong_type", format!("{} stands where a list of trades should be", excerpt(text, list))));
    }
    let mut refused = Ok(());
    let walk = Scanner::at(text, list).array(|s| {
        let trade = s.value()?;
        if refused.is_ok() {
            refused = one(text, trade, prints.len()).map(|print| prints.push(print));
        }
        Ok(())
    });
    walk.map_err(malformed)?;
    refused?;
    if let [first, .., last] = prints.as_slice()
        && first.time > last.time
    {
        prints.reverse();
    }
    Ok(())
}

fn one(text: &[u8], trade: Value, place: usize) -> Result<Print, Refusal> {
    let none = || refuse("wrong_type", format!("{} stands where a trade [price, size, time, side, …] should be", excerpt(text, trade)));
    if trade.token != Token::Array {
        return Err(none());
    }
    let (mut parts, mut count) = ([Value::default(); 7], 0);
    let walk = Scanner::at(text, trade).array(|s| {
        let value = s.value()?;
        if let Some(part) = parts.get_mut(count) {
            *part = value;
        }
        count += 1;
        Ok(())
    });
    walk.map_err(malformed)?;
    let [price, quantity, time, side, _, _, id] = parts;
    if count < 4 || [price, quantity, side].iter().any(|part| part.token != Token::Text) {
        return Err(none());
    }
    let (price, quantity) = (decimal(text, "price", price)?, decimal(text, "volume", quantity)?);
    if price == Decimal::ZERO || quantity == Decimal::ZERO {
        return Err(not_a_trade(price, quantity));
    }
    let Some(time) = seconds(text, "time", time)? else {
        return Err(refuse("bad_time", "the `time` of a trade is 0, which is none"));
    };
    let side = match side.of(text) {
        b"b" => "buy",
        b"s" => "sell",
        _ => return Err(refuse("wrong_type", format!("the side of a trade is {}, where \"b\" or \"s\" should be", excerpt(text, side)))),
    };
    let number = |id: Value| integer(text, id).filter(|id| *id >= 0);
    let id = match id.token {
        Token::Integer if count >= 7 => {
            Some(number(id).ok_or_else(|| refuse("bad_number", format!("the trade's number is {}", excerpt(text, id))))?)
        }
        Token::Null => None,
        _ => return Err(none()),
    };
    Ok(Print { price, quantity, time, side, id, place })
}

#[cold]
pub(super) fn not_a_trade(price: Decimal, size: Decimal) -> Refusal {
    refuse("not_a_trade", format!("the price is {price} and the size {size}; neither may be zero"))
}

/// A time in seconds since 1970, in quotes or not, digits beyond the sixth after the point cut; zero is none.
#[inline]
pub(super) fn seconds(text: &[u8], name: &'static str, value: Value) -> Result<Option<Micros>, Refusal> {
    match value.token {
        Token::Text | Token::Integer | Token::Number => {}
        _ => return Err(refuse("wrong_type", format!("`{name}` holds {}, where a time in seconds should be", excerpt(text, value)))),
    }
    match micros(value.of(text)) {
        Some(0) => Ok(None),
        Some(time) => Ok(Some(time)),
        None => Err(refuse("bad_time", format!("`{name}` holds {}, which is no time in seconds since 1970", excerpt(text, value)))),
    }
}

fn micros(text: &[u8]) -> Option<Micros> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &text[..0]),
    };
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    // Eleven digits of seconds reach to the year 5138, as elsewhere.
    if whole.is_empty() || whole.len() > 11 || !digits(whole) || !digits(fraction) || (fraction.is_empty() && whole.len() < text.len()) {
        return None;
    }
    let spelled = |sum: i64, digit: &u8| sum * 10 + i64::from(digit - b'0');
    let seconds = whole.iter().fold(0, spelled);
    let micros = (0..6).map(|at| fraction.get(at).copied().unwrap_or(b'0')).fold(0, |sum, digit| spelled(sum, &digit));
    Some(seconds * SECOND + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seconds() {
        for (text, expected) in [
            ("1618678133.365913", Some(1_618_678_133_365_913)),
            ("1762795433.9717445", Some(1_762_795_433_971_744)),
            ("1762820248", Some(1_762_820_248_000_000)),
            ("0.000000", Some(0)),
            ("1.5", Some(1_500_000)),
            ("99999999999.9", Some(99_999_999_999_900_000)),
            ("100000000000", None),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("1e9", None),
            ("1.5.5", None),
            ("", None),
        ] {
            assert_eq!(micros(text.as_bytes()), expected, "{text}");
        }
    }
}
