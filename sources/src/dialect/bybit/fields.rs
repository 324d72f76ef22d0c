//! Bybit's members and envelopes.
//!
//! A frame of a socket is `{"topic":…,"type":…,"ts":…,"data":…}`, a REST answer `{"retCode":0,"result":…,"time":…}`. What
//! `data` or `result` holds is an object, noted in the same walk, or a list whose elements are noted one by one.

use crate::dialect::fields::{Fields, keys};
use crate::dialect::json::{Flaw, Malformed, Member, Scan, Scanner, Value};

keys! {
    /// The members of envelopes, of answers to commands and of REST answers.
    Envelope quoted true: b"topic" b"type" b"ts" b"cts" b"retCode" b"time" b"success" b"op" b"req_id"
}

keys! {
    /// The members of what envelopes hold, in frames of sockets and in REST answers.
    Members quoted true:
    b"T" b"s" b"S" b"v" b"p" b"i" b"b" b"a" b"u"
    b"ts" b"cts" b"symbol" b"category" b"list" b"side" b"price" b"size"
    b"markPrice" b"indexPrice" b"predictedDeliveryPrice" b"lastPrice"
    b"openInterest" b"openInterestValue" b"singleOpenInterest" b"singleOpenInterestValue"
    b"fundingRate" b"nextFundingTime" b"fundingIntervalHour" b"fundingRateTimestamp"
    b"bidPrice" b"bidSize" b"askPrice" b"askSize" b"bid1Price" b"bid1Size" b"ask1Price" b"ask1Size"
    b"execId" b"time" b"updatedTime" b"timestamp" b"timeSecond" b"buyRatio" b"sellRatio" b"baseCoin"
    b"state" b"begin" b"end" b"title" b"failTopics" b"successTopics"
}

/// What an envelope holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// An object, whose members are noted.
    Object,
    /// Something else.
    Value(Value),
}

/// Notes the members of a frame and those of the object that it holds.
#[inline]
pub(crate) fn note(text: &[u8], outer: &mut Fields<Envelope>, inner: &mut Fields<Members>) -> Scan<Body> {
    outer.forget_but(0);
    inner.forget_but(0);
    let mut body = Body::None;
    let mut scanner = Scanner::new(text)?;
    scanner.letters(|s, member| match member {
        Member::Other(b"data" | b"result") => {
            let first = matches!(body, Body::None);
            if first && s.peek() == Some(b'{') {
                body = Body::Object;
                return s.letters(|s, member| inner.note(s, member));
            }
            let value = s.value()?;
            body = Body::Value(value);
            if first { Ok(()) } else { Err(Malformed { at: value.start, what: Flaw::Twice }) }
        }
        member => outer.note(s, member),
    })?;
    scanner.end()?;
    Ok(body)
}
