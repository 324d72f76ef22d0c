//! OKX's members and envelopes.
//!
//! What a socket pushes is `{"arg":{"channel":…},"action":…,"data":[…]}`, what it says of itself `{"event":…}`, and a REST answer
//! `{"code":"0","msg":"","data":[…]}`. The data is always a list, and mostly of one object.

use crate::dialect::fields::{Fields, keys};
use crate::dialect::json::{Flaw, Malformed, Member, Scan, Scanner, Token, Value};

keys! {
    /// The members of envelopes that matter, and those of their `arg`.
    Envelope quoted true: b"event" b"action" b"code" b"channel" b"instId"
}

keys! {
    /// The members of what the data holds.
    Members quoted true:
    b"instId" b"instType" b"ts" b"tradeId" b"px" b"sz" b"side" b"count"
    b"asks" b"bids" b"seqId" b"prevSeqId" b"checksum"
    b"bidPx" b"bidSz" b"askPx" b"askSz" b"markPx" b"idxPx"
    b"fundingRate" b"realizedRate" b"nextFundingRate" b"fundingTime" b"nextFundingTime"
    b"oi" b"oiCcy" b"oiUsd" b"details" b"posSide" b"bkPx"
    b"state" b"title" b"begin" b"end" b"preOpenBegin" b"tickSz"
    b"markVol" b"settlePx" b"buyLmt" b"volUsd"
}

/// What an envelope holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// A list, where its elements stand. Whether the members of the first are noted.
    List {
        /// Whether they are.
        noted: bool,
    },
    /// Something else.
    Value(Value),
}

/// Notes the members of a frame and of its `arg`, where the elements of its data stand, and the members of the first.
#[inline]
pub(crate) fn note(text: &[u8], outer: &mut Fields<Envelope>, element: &mut Fields<Members>, items: &mut Vec<Value>) -> Scan<Body> {
    outer.forget_but(0);
    element.forget_but(0);
    items.clear();
    let (mut body, mut arg) = (Body::None, false);
    let mut scanner = Scanner::new(text)?;
    scanner.object(|s, key| match key {
        b"data" => {
            if !matches!(body, Body::None) {
                return s.value().and_then(twice);
            }
            if s.peek() != Some(b'[') {
                body = Body::Value(s.value()?);
                return Ok(());
            }
            let mut noted = false;
            s.array(|s| {
                if s.peek() != Some(b'{') || !items.is_empty() {
                    items.push(s.value()?);
                    return Ok(());
                }
                let start = s.offset();
                s.object(|s, key| element.note(s, Member::Other(key)))?;
                items.push(Value { token: Token::Object, start, end: s.offset() });
                noted = true;
                Ok(())
            })?;
            body = Body::List { noted };
            Ok(())
        }
        b"arg" if arg => s.value().and_then(twice),
        b"arg" if s.peek() == Some(b'{') => {
            arg = true;
            s.object(|s, key| match key {
                b"channel" | b"instId" => outer.note(s, Member::Other(key)),
                _ => s.value().map(drop),
            })
        }
        b"event" | b"action" | b"code" => outer.note(s, Member::Other(key)),
        _ => s.value().map(drop),
    })?;
    scanner.end()?;
    Ok(body)
}

/// A member that stands there again.
#[cold]
fn twice(again: Value) -> Scan<()> {
    Err(Malformed { at: again.start, what: Flaw::Twice })
}
