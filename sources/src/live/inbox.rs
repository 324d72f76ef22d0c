//! Frames on their way from many connections to the one who writes the spool.
//!
//! Whoever listens adds what came to one buffer, and the writer takes all of it at once: a frame costs a copy, a connection that
//! has something takes the lock once for all of it, and nothing is allocated. The buffer is bounded: beyond that, whoever listens
//! waits, and so does the venue.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::spool::Batch;

/// Bytes that may wait.
const MOST: usize = 16 << 20;

/// The buffer.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
    /// Something came, or nothing comes any more.
    came: Condvar,
    /// There is room again, or nobody takes anything any more.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    senders: usize,
    closed: bool,
}

/// The end of whoever listens.
#[derive(Debug)]
pub(super) struct Sender(Arc<Inbox>);

/// The end of the writer.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Inbox>);

/// An inbox.
pub(super) fn inbox() -> (Sender, Receiver) {
    let inbox = Arc::new(Inbox::default());
    inbox.lock().senders = 1;
    (Sender(inbox.clone()), Receiver(inbox))
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

impl Sender {
    /// Adds what came, as soon as there is room for it; the batch is empty then. `false` where nobody takes anything any more.
    pub(super) async fn send(&self, batch: &mut Batch) -> bool {
        loop {
            let room = self.0.room.notified();
            if let Some(open) = self.offer(batch) {
                return open;
            }
            room.await;
        }
    }

    /// Adds what came like [`send`](Self::send) where there is room for it; `None` where there is none.
    pub(super) fn offer(&self, batch: &mut Batch) -> Option<bool> {
        let mut state = self.0.lock();
        if state.closed {
            return Some(false);
        }
        (state.waiting.bytes.len() < MOST).then(|| {
            if state.waiting.frames == 0 {
                self.0.came.notify_one();
            }
            state.waiting.append(batch);
            true
        })
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.came.notify_one();
    }
}

impl Receiver {
    /// Takes everything that came into an empty batch, once there is anything; `false` where nothing comes any more.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        let idle = |state: &mut State| state.waiting.frames == 0 && state.senders > 0;
        let mut state = self.0.came.wait_while(self.0.lock(), idle).expect("nobody panics with it");
        std::mem::swap(&mut state.waiting, batch);
        self.0.room.notify_waiters();
        batch.frames > 0
    }

    /// Whether nobody sends any more.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().senders == 0
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::Heard;
    use super::*;

    fn batch(bytes: usize) -> Batch {
        let mut batch = Batch::default();
        batch.push(Heard { receive_time: 1, connection: 0, dialect: "d", topic: "", payload: &vec![b'x'; bytes] });
        batch
    }

    #[tokio::test]
    async fn what_many_send_is_taken_at_once_and_the_end_is_noticed() {
        let (one, receiver) = inbox();
        let other = one.clone();
        assert!(one.send(&mut batch(1)).await && other.send(&mut batch(2)).await);
        let mut taken = Batch::default();
        assert!(receiver.take(&mut taken));
        assert_eq!(taken.frames, 2);
        drop(one);
        assert!(!receiver.is_over());
        assert!(other.send(&mut batch(3)).await);
        drop(other);
        let mut taken = Batch::default();
        assert!(receiver.is_over() && receiver.take(&mut taken), "the last is taken");
        assert!(!receiver.take(&mut Batch::default()));
    }

    #[tokio::test]
    async fn who_sends_waits_for_room() {
        let (sender, receiver) = inbox();
        assert!(sender.send(&mut batch(MOST)).await);
        let second = tokio::spawn(async move { (sender.send(&mut batch(1)).await, sender.send(&mut batch(MOST)).await, sender) });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        let mut taken = Batch::default();
        assert!(receiver.take(&mut taken));
        let (first, then, sender) = second.await.unwrap();
        assert!(first && then);
        drop(receiver);
        assert!(!sender.send(&mut batch(1)).await, "nobody takes it");
    }
}
