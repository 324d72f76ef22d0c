//! What the tests of the venues share.

use super::venue::{Line, Order, Over, Protocol, Said};

/// Hears a frame over a connection that has no other beside it. What it is to the connection, and the orders in words.
pub(super) fn hear(listener: &mut dyn Protocol, line: Line, frame: &str) -> (Said, Vec<String>) {
    hear_over(listener, Over { line, beside: false }, frame)
}

/// The same over a connection that is to take the place of another one, which is still there.
pub(super) fn hear_beside(listener: &mut dyn Protocol, line: Line, frame: &str) -> (Said, Vec<String>) {
    hear_over(listener, Over { line, beside: true }, frame)
}

fn hear_over(listener: &mut dyn Protocol, over: Over, frame: &str) -> (Said, Vec<String>) {
    let mut orders = Vec::new();
    let said = listener.hear(over, frame.as_bytes(), &mut orders);
    (said, orders.iter().map(words).collect())
}

/// An order in words.
pub(super) fn words(order: &Order) -> String {
    match order {
        Order::Ask { ask, failed, .. } => format!("{} {} {failed}", ask.path, ask.topic),
        Order::Gap { hole, .. } => format!("gap {:?} {} {}", hole.numbers, hole.since, hole.until),
        Order::Resubscribe { channel } => format!("resubscribe {channel}"),
        Order::Say(text) => format!("say {text}"),
    }
}
