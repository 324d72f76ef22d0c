//! The frames of the simulated venues, byte for byte as the venues write them.
//!
//! A [`Wire`] writes into a buffer that is used over and over: nothing is allocated or formatted per frame.
//! Binance's shapes are those of its recorded streams: everything in a combined-stream envelope, except
//! the REST depth snapshot, which comes bare and on spot and USD-M names no symbol.

use std::fmt;

use super::book::{Book, Delta, Level, Side};
use super::listing::{Listing, Scale};
use super::market::{Mark, Quote, Trade};

/// Writes the frames of a venue's protocol; `time` is in milliseconds since 1970.
pub(super) trait Wire: fmt::Debug + Sync {
    fn trade(&self, out: &mut Vec<u8>, of: &Listing, time: i64, trade: &Trade);
    fn quote(&self, out: &mut Vec<u8>, of: &Listing, time: i64, quote: &Quote);
    /// A depth update with the levels that the book published last.
    fn delta(&self, out: &mut Vec<u8>, of: &Listing, time: i64, delta: &Delta, book: &Book);
    fn mark(&self, out: &mut Vec<u8>, of: &Listing, time: i64, mark: &Mark);
    /// The answer to a request for the whole book.
    fn snapshot(&self, out: &mut Vec<u8>, of: &Listing, time: i64, book: &Book);
}

/// Appends texts, whole numbers and `(value, scale)` decimals.
macro_rules! put {
    ($out:expr, $($piece:expr),+ $(,)?) => {{ $( Piece::put($piece, $out); )+ }};
}

/// Digits of marks, indices and rates after the point.
const EIGHTH: Scale = Scale { digits: 8, zeros: "" };

/// Binance's three protocols.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Binance {
    Spot,
    UsdM,
    CoinM,
}

impl Binance {
    /// `,"s":"BTCUSDT"` and the pair where the market names it.
    fn symbol(&self, out: &mut Vec<u8>, of: &Listing) {
        put!(out, r#","s":""#, of.code.as_str(), r#"""#);
        if *self == Binance::CoinM {
            put!(out, r#","ps":""#, of.pair.as_str(), r#"""#);
        }
    }
}

impl Wire for Binance {
    fn trade(&self, out: &mut Vec<u8>, of: &Listing, time: i64, trade: &Trade) {
        let maker = if trade.buyer_is_maker { "true" } else { "false" };
        put!(out, r#"{"stream":""#, of.stream.as_str(), r#"@trade","data":{"e":"trade","E":"#, time);
        if *self != Binance::Spot {
            put!(out, r#","T":"#, time);
        }
        self.symbol(out, of);
        put!(out, r#","t":"#, trade.id, r#","p":""#, (trade.price, of.price), r#"","q":""#, (trade.quantity, of.quantity));
        match self {
            Binance::Spot => put!(out, r#"","T":"#, time, r#","m":"#, maker, r#","M":true}}"#),
            _ => put!(out, r#"","X":"MARKET","m":"#, maker, "}}"),
        }
    }

    fn quote(&self, out: &mut Vec<u8>, of: &Listing, time: i64, quote: &Quote) {
        put!(out, r#"{"stream":""#, of.stream.as_str());
        match self {
            Binance::Spot => put!(out, r#"@bookTicker","data":{"u":"#, quote.number),
            Binance::UsdM => put!(out, r#"@bookTicker","data":{"e":"bookTicker","u":"#, quote.number),
            Binance::CoinM => put!(out, r#"@bookTicker","data":{"u":"#, quote.number, r#","e":"bookTicker""#),
        }
        self.symbol(out, of);
        put!(out, r#","b":""#, (quote.bid.price, of.price), r#"","B":""#, (quote.bid.quantity, of.quantity));
        put!(out, r#"","a":""#, (quote.ask.price, of.price), r#"","A":""#, (quote.ask.quantity, of.quantity));
        match self {
            Binance::Spot => put!(out, r#""}}"#),
            _ => put!(out, r#"","T":"#, time, r#","E":"#, time, "}}"),
        }
    }

    fn delta(&self, out: &mut Vec<u8>, of: &Listing, time: i64, delta: &Delta, book: &Book) {
        let interval = if *self == Binance::Spot { "100ms" } else { "0ms" };
        put!(out, r#"{"stream":""#, of.stream.as_str(), "@depth@", interval, r#"","data":{"e":"depthUpdate","E":"#, time);
        if *self != Binance::Spot {
            put!(out, r#","T":"#, time);
        }
        self.symbol(out, of);
        put!(out, r#","U":"#, delta.first, r#","u":"#, delta.last);
        if *self != Binance::Spot {
            put!(out, r#","pu":"#, delta.previous);
        }
        put!(out, r#","b":["#);
        levels(out, of, book.changed(Side::Bid).iter());
        put!(out, r#"],"a":["#);
        levels(out, of, book.changed(Side::Ask).iter());
        put!(out, "]}}");
    }

    fn mark(&self, out: &mut Vec<u8>, of: &Listing, time: i64, mark: &Mark) {
        put!(
            out,
            r#"{"stream":""#,
            of.stream.as_str(),
            r#"@markPrice","data":{"e":"markPriceUpdate","E":"#,
            time,
            r#","s":""#,
            of.code.as_str()
        );
        put!(out, r#"","p":""#, (mark.mark, EIGHTH), r#"","i":""#, (mark.index, EIGHTH), r#"","P":""#, (mark.index, EIGHTH));
        put!(out, r#"","r":""#, (mark.rate, EIGHTH), r#"","T":"#, mark.next_funding, "}}");
    }

    fn snapshot(&self, out: &mut Vec<u8>, of: &Listing, time: i64, book: &Book) {
        put!(out, r#"{"lastUpdateId":"#, book.number());
        if *self != Binance::Spot {
            put!(out, r#","E":"#, time, r#","T":"#, time);
        }
        if *self == Binance::CoinM {
            put!(out, r#","symbol":""#, of.code.as_str(), r#"","pair":""#, of.pair.as_str(), r#"""#);
        }
        put!(out, r#","bids":["#);
        levels(out, of, book.levels(Side::Bid).iter().rev());
        put!(out, r#"],"asks":["#);
        levels(out, of, book.levels(Side::Ask).iter().rev());
        put!(out, "]}");
    }
}

/// `["61837.63","1.5"],...`
fn levels<'a>(out: &mut Vec<u8>, of: &Listing, levels: impl Iterator<Item = &'a Level>) {
    let mut separator = "";
    for level in levels {
        put!(out, separator, r#"[""#, (level.price, of.price), r#"",""#, (level.quantity, of.quantity), r#""]"#);
        separator = ",";
    }
}

/// Something that a frame is made of.
trait Piece {
    fn put(self, out: &mut Vec<u8>);
}

impl Piece for &str {
    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Piece for i64 {
    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        (self, Scale { digits: 0, zeros: "" }).put(out);
    }
}

/// A decimal: `(value, scale)` is `value` · 10^-digits, followed by the scale's zeros.
impl Piece for (i64, Scale) {
    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        let (value, scale) = self;
        // Written from the end: at most 19 digits, the point and the sign.
        let mut text = [0_u8; 24];
        let mut at = text.len();
        let mut rest = value.unsigned_abs();
        let mut written = 0;
        while rest > 0 || written <= scale.digits {
            if written == scale.digits && written > 0 {
                at -= 1;
                text[at] = b'.';
            }
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            written += 1;
        }
        if value < 0 {
            at -= 1;
            text[at] = b'-';
        }
        out.extend_from_slice(&text[at..]);
        if scale.digits > 0 {
            out.extend_from_slice(scale.zeros.as_bytes());
        } else if !scale.zeros.is_empty() {
            out.push(b'.');
            out.extend_from_slice(scale.zeros.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Decimal;
    use proptest::prelude::*;

    fn text(value: i64, digits: u8, zeros: &'static str) -> String {
        let mut out = Vec::new();
        (value, Scale { digits, zeros }).put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_decimals_as_venues_do() {
        assert_eq!(text(6_183_763, 2, "000000"), "61837.63000000");
        assert_eq!(text(0, 5, "000"), "0.00000000");
        assert_eq!(text(7, 0, "00000000"), "7.00000000");
        assert_eq!(text(0, 0, ""), "0");
        assert_eq!(text(-5, 8, ""), "-0.00000005");
        assert_eq!(text(i64::MIN, 0, ""), "-9223372036854775808");
    }

    proptest! {
        #[test]
        fn decimals_read_back(value in any::<i64>(), digits in 0_u8..=12) {
            let scale = Scale { digits, zeros: "" };
            prop_assert_eq!(text(value, digits, "").parse::<Decimal>().unwrap(), scale.decimal(value));
        }
    }
}
