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

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Budget { limit, state: Mutex::default(), room: Condvar::new() }
    }

    /// Waits for room, then takes `bytes` for rows of `time`. Once the budget is lifted, nothing waits.
    pub fn take(&self, time: Time, bytes: usize) {
        let mut state = self.state.lock().expect("no holder panics");
        while state.bytes > 0 && state.bytes + bytes > self.limit && !state.open {
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
