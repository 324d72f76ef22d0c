//! Backpressure: how many bytes may be between the sources and the sinks.
//!
//! Timely has none of its own. A source takes its chunk's bytes from the budget before it hands the chunk to a
//! worker, and gets them back when the dataflow has passed the chunk's logical time everywhere, which a sink that
//! cannot keep up delays. One chunk is always let through, so a chunk larger than the budget cannot block.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use model::time::Time;

/// Bytes in flight, in the order of their logical times.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_flight: VecDeque<(Time, usize)>,
    bytes: usize,
    open: bool,
}

impl State {
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= limit || self.open
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Budget { limit, state: Mutex::default(), room: Condvar::new() }
    }

    /// Whether rows of so many bytes may join those of `time` already in flight: there is room, and `time` has not
    /// enough to do as it is.
    pub fn may_join(&self, time: Time, bytes: usize) -> bool {
        let state = self.state.lock().expect("no holder panics");
        let joined = state.in_flight.back().map_or(0, |(last, bytes)| if *last == time { *bytes } else { 0 });
        joined < self.limit / 8 && state.has_room(bytes, self.limit)
    }

    /// Waits for room, then takes `bytes` for rows of `time`. Once the budget is lifted, nothing waits. Where there is
    /// no room, `time` must be later than all that was taken: what is in flight stays so until time goes on.
    pub fn take(&self, time: Time, bytes: usize) {
        let mut state = self.state.lock().expect("no holder panics");
        while !state.has_room(bytes, self.limit) {
            state = self.room.wait(state).expect("no holder panics");
        }
        state.bytes += bytes;
        match state.in_flight.back_mut() {
            Some((last, taken)) if *last == time => *taken += bytes,
            _ => state.in_flight.push_back((time, bytes)),
        }
    }

    /// Gives back the bytes of every time before `frontier`; `None` is the end of time.
    pub fn release(&self, frontier: Option<Time>) {
        let mut state = self.state.lock().expect("no holder panics");
        while let Some((_, bytes)) = state.in_flight.front().copied().filter(|(time, _)| frontier.is_none_or(|f| *time < f)) {
            state.in_flight.pop_front();
            state.bytes -= bytes;
        }
        self.room.notify_all();
    }

    /// Whether half of the budget or more is taken: the dataflow has enough to do.
    pub fn is_loaded(&self) -> bool {
        self.state.lock().expect("no holder panics").bytes * 2 >= self.limit
    }

    /// Stops all waiting, now and later: the pipeline is being given up.
    pub fn lift(&self) {
        self.state.lock().expect("no holder panics").open = true;
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that wait for room must not be of the time that has to pass before there is room.
    #[test]
    fn a_source_faster_than_the_clock_does_not_wait_for_itself() {
        let budget = Budget::new(800);
        let mut time = 1;
        for _ in 0..100 {
            if !budget.may_join(time, 90) {
                time += 1;
                // The dataflow passes every time but the one that the source is at.
                budget.release(Some(time));
            }
            budget.take(time, 90);
            assert!(budget.state.lock().unwrap().bytes <= 800);
        }
        assert!(time < 100, "some rows share a time");
    }

    #[test]
    fn one_chunk_is_always_let_through_and_a_lifted_budget_waits_for_nothing() {
        let budget = Budget::new(10);
        budget.take(1, 1_000);
        assert!(budget.is_loaded() && !budget.may_join(1, 1));
        budget.lift();
        budget.take(1, 1_000);
        budget.release(None);
        assert!(!budget.is_loaded());
    }
}
