//! REST answers.
//!
//! An answer does not say what it is, but its members do. Where it names no instrument (books, ratios, open interest of the past) the
//! frame's topic must, and of lists of bare numbers it must also say what was asked for: `ID@ENDPOINT@PERIOD`, e.g.
//! `BTC-USDT-SWAP@long-short-position-ratio-contract-top-trader@1H`.

use model::Decimal;
use model::dialect::{FrameRef, Outcome, Records};
use model::kinds::LongShortRatio;
use model::time::Micros;

use super::events::{Open, VENUE, asked};
use super::fields::Members;
use super::{Okx, Read, listing, unknown};
use crate::dialect::digits;
use crate::dialect::fields::{Event, Keys, Refusal, decimal, excerpt, malformed, micros, refuse};
use crate::dialect::figures::Figures;
use crate::dialect::json::{Scanner, Token, Value};
use crate::dialect::reading::Pass;

/// Members of objects of answers that become no record: greeks, estimates of settlement, limits of prices, volumes.
const OTHER_ANSWERS: [&str; 4] = ["markVol", "settlePx", "buyLmt", "volUsd"];

/// What a list of bare numbers tells.
#[derive(Clone, Copy, Debug)]
enum Series {
    /// A ratio: what is counted, and of whom.
    Ratio(&'static str, &'static str),
    /// Open interest of the past.
    OpenInterest,
    /// Nothing that becomes a record.
    Other,
}

impl Series {
    /// What an endpoint answers.
    fn of(endpoint: &str) -> Series {
        match endpoint {
            "long-short-account-ratio-contract" => Series::Ratio("account", "all"),
            "long-short-account-ratio-contract-top-trader" => Series::Ratio("account", "top"),
            "long-short-position-ratio-contract-top-trader" => Series::Ratio("position", "top"),
            "open-interest-history" => Series::OpenInterest,
            _ => Series::Other,
        }
    }
}

impl Okx {
    /// An answer, in the order of time: OKX sends the newest first.
    pub(super) fn answer(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let Some(head) = self.items.first().copied() else { return Ok(Outcome::Ignored) };
        if head.token == Token::Array {
            return self.series(frame, records);
        }
        self.note_item(text, 0)?;
        let event = Event { text, fields: &self.element };
        let has = |name| event.has(name);
        let (read, time): (Read, _) = if has("tradeId") && has("px") {
            (|reading, records| reading.trade(records), Some("ts"))
        } else if has("bids") && has("asks") {
            (|reading, records| reading.snapshot(records), None)
        } else if has("bidPx") || has("askPx") {
            (|reading, records| reading.ticker(records), None)
        } else if has("realizedRate") {
            (|reading, records| reading.paid_rate(records), Some("fundingTime"))
        } else if has("fundingRate") {
            (|reading, records| reading.funding_rate(records), None)
        } else if has("oi") {
            (|reading, records| reading.open_interest(records), None)
        } else if has("idxPx") {
            (|reading, records| reading.index_price(records), None)
        } else if has("markPx") {
            (|reading, records| reading.mark_price(records), None)
        } else if has("details") {
            if !has("instId") {
                // Prices at which instruments were delivered, or funds.
                return Ok(Outcome::Ignored);
            }
            (|reading, records| reading.liquidations(records), None)
        } else if has("state") && has("begin") {
            (|reading, records| reading.status(records), None)
        } else if has("instId") && has("tickSz") {
            return listing::push(frame, records);
        } else if OTHER_ANSWERS.into_iter().any(has) || is_time(event) {
            return Ok(Outcome::Ignored);
        } else {
            return Err(unknown(&format!("an answer that begins with {}", excerpt(text, head))));
        };
        self.noted = false;
        if let (Some(time), [head, .., tail]) = (time, self.items.as_slice())
            && (head.token, tail.token) == (Token::Object, Token::Object)
        {
            let last = self.items.len() - 1;
            if self.time_of(text, 0, time)? >= self.time_of(text, last, time)? {
                self.items.reverse();
            }
        }
        self.each(frame, read, records)
    }

    fn time_of(&mut self, text: &[u8], at: usize, name: &'static str) -> Result<Micros, Refusal> {
        self.note_item(text, at)?;
        Event { text, fields: &self.element }.quoted_time(name)
    }

    /// An answer of lists of bare numbers, of which only the topic tells what they are.
    fn series(&mut self, frame: FrameRef<'_>, records: &mut Records) -> Result<Outcome, Refusal> {
        let text = frame.payload;
        let mut topic = frame.topic.unwrap_or_default().split('@').skip(1);
        let series = match topic.next() {
            Some(endpoint) => Series::of(endpoint),
            // Candles have more numbers; these might be what we keep.
            None if matches!(self.parts(text, 0)?.1, 2 | 4) => {
                return Err(refuse(
                    "missing_field",
                    "the answer does not say what it counts; give the source what was asked for as `symbol`, e.g. `BTC-USDT-SWAP@long-short-account-ratio-contract@5m`",
                ));
            }
            None => Series::Other,
        };
        let wanted = match series {
            Series::Ratio(..) => records.long_short_ratio.is_some(),
            Series::OpenInterest => records.open_interest.is_some(),
            Series::Other => false,
        };
        if !wanted {
            return Ok(Outcome::Ignored);
        }
        let period_seconds = match series {
            Series::Ratio(..) => topic.next().and_then(seconds).ok_or_else(|| {
                let detail = "the answer does not say its period, of a fixed length; name it behind the endpoint, e.g. `BTC-USDT-SWAP@long-short-account-ratio-contract@5m`";
                refuse("missing_field", detail)
            })?,
            _ => 0,
        };
        let (first, last) = (self.begin(text, 0)?, self.begin(text, self.items.len() - 1)?);
        if first >= last {
            self.items.reverse();
        }
        for pass in [Pass::Check, Pass::Push] {
            for at in 0..self.items.len() {
                let event_time = self.begin(text, at)?;
                let (parts, count) = self.parts(text, at)?;
                let needed = if matches!(series, Series::Ratio(..)) { 2 } else { 4 };
                if count < needed {
                    return Err(self.odd(text, at));
                }
                let listing = asked(frame, &mut self.symbols)?;
                match series {
                    Series::Ratio(basis, population) => {
                        let ratio = decimal(text, "data", parts[1])?;
                        if let (Some(builder), Pass::Push) = (&mut records.long_short_ratio, pass) {
                            builder.push(LongShortRatio {
                                venue: VENUE,
                                market: listing.market.as_str(),
                                symbol: &listing.symbol,
                                event_time,
                                receive_time: frame.receive_time,
                                frame: Some(frame.frame),
                                basis,
                                population,
                                period_seconds,
                                ratio,
                                // Only the ratio is told, rounded.
                                long_share: None,
                                short_share: None,
                            });
                        }
                    }
                    _ => {
                        let [contracts, base, dollars] = [parts[1], parts[2], parts[3]].map(|part| figure(text, part));
                        let open = Open { contracts: contracts?, base: Some(base?), dollars: Some(dollars?) };
                        let figures = Figures { open_interest: Some(open.amounts(listing)), ..Figures::default() };
                        figures.push(VENUE, listing, event_time, frame, pass, records);
                    }
                }
            }
        }
        Ok(Outcome::Decoded)
    }

    /// The first numbers of a list in the data, all in quotes, and how many there are.
    fn parts(&self, text: &[u8], at: usize) -> Result<([Value; 4], usize), Refusal> {
        let (mut parts, mut count, mut plain) = ([Value::default(); 4], 0, true);
        let item = self.items.get(at).copied().unwrap_or_default();
        if item.token != Token::Array {
            return Err(self.odd(text, at));
        }
        let walk = Scanner::at(text, item).array(|s| {
            let part = s.value()?;
            plain &= part.token == Token::Text;
            if let Some(place) = parts.get_mut(count) {
                *place = part;
            }
            count += 1;
            Ok(())
        });
        walk.map_err(malformed)?;
        if plain { Ok((parts, count)) } else { Err(self.odd(text, at)) }
    }

    #[cold]
    fn odd(&self, text: &[u8], at: usize) -> Refusal {
        let item = self.items.get(at).copied().unwrap_or_default();
        refuse("wrong_type", format!("`data` holds {}, where a time and figures in quotes should be", excerpt(text, item)))
    }

    /// The time that a list begins with.
    fn begin(&self, text: &[u8], at: usize) -> Result<Micros, Refusal> {
        let (parts, count) = self.parts(text, at)?;
        if count == 0 {
            return Err(self.odd(text, at));
        }
        digits::integer(text, parts[0])
            .and_then(micros)
            .ok_or_else(|| refuse("bad_time", format!("{} is no time in milliseconds since 1970", excerpt(text, parts[0]))))
    }
}

/// A figure that the venue worked out, in quotes.
fn figure(text: &[u8], value: Value) -> Result<model::Decimal, Refusal> {
    let figure = Decimal::parse_rounded(value.of(text));
    let bad = |detail: String| refuse("bad_number", format!("{} {detail}", excerpt(text, value)));
    match figure {
        Ok(figure) if figure >= Decimal::ZERO => Ok(figure),
        Ok(_) => Err(bad("is negative".into())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Whether an object tells only the time.
fn is_time(event: Event<'_, Members>) -> bool {
    Members::slot(b"ts").is_some_and(|slot| event.has("ts") && !event.fields.has_but(1 << slot))
}

/// The seconds of a period, `5m`, `1H`, `1D` or, by the hours of another place, `1Dutc`; months have no fixed length.
fn seconds(period: &str) -> Option<i64> {
    let period = period.strip_suffix("utc").unwrap_or(period);
    let (digits, unit) = period.split_at_checked(period.len().checked_sub(1)?)?;
    let unit = match unit {
        "m" => 60,
        "H" => 3_600,
        "D" => 86_400,
        "W" => 604_800,
        _ => return None,
    };
    digits.parse::<u16>().ok().filter(|count| *count > 0).map(|count| i64::from(count) * unit)
}
