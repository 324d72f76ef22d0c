//! What a message of Advanced Trade holds, for who follows messages without decoding them.
//!
//! `{"channel":…,"events":[…]}`: an event of trades, tickers or products lists them; an event of a book is one change of one product.
//! A message is walked once, and nothing is allocated once the lists have grown.

use super::events::Names;
use crate::dialect::fields::{Event, Fields};
use crate::dialect::json::{Member, Scan, Scanner, Token, Value};

/// A trade, a ticker, a product or an event of a book. What it does not say is null.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Item {
    /// Where it stands.
    pub(crate) place: Value,
    /// Its product.
    pub(crate) product: Value,
    /// The number of a trade.
    pub(crate) number: Value,
    /// The time of a trade.
    pub(crate) time: Value,
    /// Whether it is of a snapshot.
    pub(crate) snapshot: bool,
}

/// What a message holds: items, in lists that stand behind each other.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// In the order sent.
    pub(crate) items: Vec<Item>,
    /// Where each list stands, and how many items it has.
    pub(crate) lists: Vec<(Value, usize)>,
}

/// Notes the members of a message's envelope, and what it holds. What is no item of the venue's is one that says nothing.
pub(crate) fn note(text: &[u8], outer: &mut Fields<Names>, inner: &mut Fields<Names>, message: &mut Message) -> Scan<()> {
    outer.forget_but(0);
    message.items.clear();
    message.lists.clear();
    let (mut scanner, mut noted) = (Scanner::new(text)?, false);
    scanner.object(|s, key| {
        if noted || key != b"events" || s.peek() != Some(b'[') {
            return outer.note(s, Member::Other(key));
        }
        noted = true;
        let start = s.offset();
        s.array(|s| event(s, text, inner, message))?;
        // Its events are the items where none of them has a list. Where some have, the others are nothing that is followed.
        if message.lists.is_empty() {
            message.lists.push((Value { token: Token::Array, start, end: s.offset() }, message.items.len()));
        } else if message.lists.iter().map(|(_, count)| count).sum::<usize>() < message.items.len() {
            message.items.clear();
        }
        Ok(())
    })?;
    scanner.end()
}

/// Notes an event.
fn event(s: &mut Scanner<'_>, text: &[u8], inner: &mut Fields<Names>, message: &mut Message) -> Scan<()> {
    if s.peek() != Some(b'{') {
        return s.value().map(drop);
    }
    let (start, from, lists) = (s.offset(), message.items.len(), message.lists.len());
    let (mut kind, mut product) = (Value::default(), Value::default());
    s.object(|s, key| {
        match key {
            b"trades" | b"tickers" | b"products" if s.peek() == Some(b'[') => return list(s, text, inner, message),
            b"type" => kind = s.value()?,
            b"product_id" => product = s.value()?,
            _ => drop(s.value()?),
        }
        Ok(())
    })?;
    if message.lists.len() == lists {
        let place = Value { token: Token::Object, start, end: s.offset() };
        message.items.push(Item { place, product, ..Item::default() });
    }
    let snapshot = kind.of(text) == b"snapshot";
    message.items[from..].iter_mut().for_each(|item| item.snapshot = snapshot);
    Ok(())
}

/// Notes the items of a list.
fn list(s: &mut Scanner<'_>, text: &[u8], inner: &mut Fields<Names>, message: &mut Message) -> Scan<()> {
    let (start, from) = (s.offset(), message.items.len());
    s.array(|s| {
        inner.forget_but(0);
        let object = s.peek() == Some(b'{');
        let start = s.offset();
        if object {
            s.object(|s, key| inner.note(s, Member::Other(key)))?;
        } else {
            s.value()?;
        }
        let item = Event { text, fields: inner };
        let member = |name| item.get(name).unwrap_or_default();
        message.items.push(Item {
            place: Value { token: Token::Object, start, end: s.offset() },
            product: item.get("product_id").unwrap_or_else(|| member("id")),
            number: member("trade_id"),
            time: member("time"),
            snapshot: false,
        });
        Ok(())
    })?;
    message.lists.push((Value { token: Token::Array, start, end: s.offset() }, message.items.len() - from));
    Ok(())
}

impl Message {
    /// The message with those of its items that are kept, as they were sent.
    pub(crate) fn part(&self, text: &[u8], kept: &[bool]) -> Vec<u8> {
        let mut part = Vec::with_capacity(text.len());
        let (mut at, mut items) = (0, self.items.iter().zip(kept));
        for (list, count) in &self.lists {
            let kept: Vec<&[u8]> = items.by_ref().take(*count).filter(|(_, kept)| **kept).map(|(item, _)| item.place.of(text)).collect();
            part.extend_from_slice(&text[at..list.start as usize]);
            part.push(b'[');
            part.extend(kept.join(&b','));
            part.push(b']');
            at = list.end as usize;
        }
        part.extend_from_slice(&text[at..]);
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(text: &str) -> Message {
        let mut message = Message::default();
        note(text.as_bytes(), &mut Fields::default(), &mut Fields::default(), &mut message).unwrap();
        message
    }

    /// The product, the number and the time of each item, and whether it is of a snapshot.
    fn items(text: &str) -> Vec<String> {
        let of = |value: Value| std::str::from_utf8(value.of(text.as_bytes())).unwrap();
        let words = |item: &Item| format!("{} {} {} {}", of(item.product), of(item.number), of(item.time), item.snapshot);
        noted(text).items.iter().map(words).collect()
    }

    const TRADES: &str = r#"{"channel":"market_trades","events": [{"type":"snapshot","trades":[ {"product_id":"A","trade_id":"2","time":"t"} , {"product_id":"B","trade_id":1}]},{"trades":[{"product_id":"A","trade_id":"3"}],"type":"update"}],"sequence_num":7}"#;
    const BOOKS: &str = r#"{"channel":"l2_data","events":[{"type":"snapshot","product_id":"A","updates":[{"side":"bid"}]},{"type":"update","product_id":"B","updates":[]}]}"#;

    #[test]
    fn a_message_is_taken_apart() {
        assert_eq!(items(TRADES), ["A 2 t true", "B 1  true", "A 3  false"]);
        assert_eq!(items(BOOKS), ["A   true", "B   false"]);
        assert_eq!(items(r#"{"channel":"status","events":[{"type":"snapshot","products":[{"id":"A"},7]}]}"#), ["A   true", "   true"]);
        assert_eq!(items(r#"{"channel":"heartbeats","events":[{"heartbeat_counter":1}]}"#), ["   false"]);
        assert_eq!(items(r#"{"type":"error","message":"no"}"#), [""; 0]);
        assert_eq!(items(r#"{"channel":"ticker","events":[{"tickers":[{"product_id":"A"}]},{}]}"#), [""; 0]);
    }

    #[test]
    fn a_part_of_a_message_is_as_it_was_sent() {
        let part = |text: &str, kept: &[bool]| String::from_utf8(noted(text).part(text.as_bytes(), kept)).unwrap();
        let expected = r#"{"channel":"market_trades","events": [{"type":"snapshot","trades":[{"product_id":"B","trade_id":1}]},{"trades":[],"type":"update"}],"sequence_num":7}"#;
        assert_eq!(part(TRADES, &[false, true, false]), expected);
        let expected = r#"{"channel":"l2_data","events":[{"type":"update","product_id":"B","updates":[]}]}"#;
        assert_eq!(part(BOOKS, &[false, true]), expected);
        assert_eq!(part(BOOKS, &[true, true]), BOOKS);
    }
}
