//! A network between a client and a server that can fail: connections through a [`Proxy`] pass, break or stand still.
//!
//! Promises, and why they hold: after [`Proxy::cut`] returns, every connection that was open has ended at both sides, and new
//! ones end at once, as where nobody listens. While it stands still nothing passes, not even an end, and nothing ends:
//! what was sent before waits here, so that the server may have done something of which the client does not hear. Bytes
//! are passed on in order or not at all. [`Proxy::heal`] lets pass what waited.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// A proxy on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Both ends of each connection.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Cut,
    Still,
    Over,
}

impl Proxy {
    /// Stands before a server at `host:port` or `http://host:port`, which need not run yet.
    ///
    /// # Errors
    /// There is no port.
    pub fn before(server: &str) -> io::Result<Proxy> {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let state = State { mode: Mode::Open, open: BTreeMap::new(), next: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_listener = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_listener.state().mode == Mode::Over {
                    return;
                }
                let (server, shared) = (server.clone(), of_listener.clone());
                // A connection that cannot be made, or breaks, concerns its client only.
                thread::spawn(move || shared.connect(client, &server).unwrap_or_default());
            }
        });
        Ok(Proxy { port, shared })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks all connections, and refuses new ones.
    pub fn cut(&self) {
        self.shared.become_(Mode::Cut);
    }

    /// Lets nothing pass, and answers nothing.
    pub fn stand_still(&self) {
        self.shared.become_(Mode::Still);
    }

    /// Lets everything pass.
    pub fn heal(&self) {
        self.shared.become_(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.become_(Mode::Over);
        // Wakes the listener, which sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no proxy panics")
    }

    fn become_(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Over) {
            std::mem::take(&mut state.open).values().flatten().for_each(end);
        }
        self.changed.notify_all();
    }

    /// Waits while it stands still; whether things pass then.
    fn passes(&self) -> bool {
        let state = self.changed.wait_while(self.state(), |state| state.mode == Mode::Still).expect("no proxy panics");
        state.mode == Mode::Open
    }

    fn connect(self: Arc<Self>, client: TcpStream, server: &str) -> io::Result<()> {
        if !self.passes() {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect(server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        let mut state = self.state();
        if state.mode == Mode::Cut || state.mode == Mode::Over {
            return client.shutdown(Shutdown::Both);
        }
        let number = state.next;
        state.next += 1;
        state.open.insert(number, ends);
        drop(state);
        let (shared, from, to) = (self.clone(), server.try_clone()?, client.try_clone()?);
        let answers = thread::spawn(move || shared.pass(from, to));
        self.pass(client, server);
        let _ = answers.join();
        self.state().open.remove(&number);
        Ok(())
    }

    /// Passes bytes on until their end, which is passed on as well.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes);
            if !self.passes() {
                return;
            }
            match read {
                Ok(0) => return drop(to.shutdown(Shutdown::Write)),
                Ok(read) if to.write_all(&bytes[..read]).is_ok() => {}
                // One side is gone, and the other is to know.
                _ => return [from, to].iter().for_each(end),
            }
        }
    }
}

fn end(stream: &TcpStream) {
    // It may have ended by itself.
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::time::Duration;

    use super::*;
    use crate::program::until;

    /// A server that answers each line with the same line.
    fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut to = client.try_clone().unwrap();
                    for line in BufReader::new(client).lines().map_while(Result::ok) {
                        writeln!(to, "{line}").unwrap();
                    }
                });
            }
        });
        address
    }

    struct Client(BufReader<TcpStream>);

    impl Client {
        fn of(proxy: &Proxy) -> Client {
            Client(BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).unwrap()))
        }

        fn say(&mut self, line: &str) -> io::Result<()> {
            writeln!(self.0.get_mut(), "{line}")
        }

        /// The next line; empty at the end; an error when none came in the time.
        fn hear(&mut self, within: Duration) -> io::Result<String> {
            self.0.get_ref().set_read_timeout(Some(within))?;
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            Ok(line.trim_end().to_owned())
        }

        fn asks(&mut self, line: &str) -> bool {
            self.say(line).is_ok() && self.hear(LONG).is_ok_and(|heard| heard == line)
        }

        fn has_ended(&mut self) -> bool {
            match self.hear(LONG) {
                Ok(line) => line.is_empty(),
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn connections_pass_break_and_stand_still() {
        let proxy = Proxy::before(&echo()).unwrap();
        let (mut one, mut other) = (Client::of(&proxy), Client::of(&proxy));
        assert!(one.asks("a") && other.asks("b") && one.asks("c"));

        proxy.cut();
        assert!(one.has_ended() && other.has_ended(), "connections are cut");
        assert!(Client::of(&proxy).has_ended(), "new ones are refused");
        proxy.heal();
        let mut one = Client::of(&proxy);
        assert!(one.asks("d"));

        proxy.stand_still();
        let mut new = Client::of(&proxy);
        for client in [&mut one, &mut new] {
            client.say("e").unwrap();
            let heard = client.hear(SHORT);
            assert!(heard.is_err(), "nothing passes and nothing ends: {heard:?}");
        }
        proxy.heal();
        for client in [&mut one, &mut new] {
            assert_eq!(client.hear(LONG).unwrap(), "e", "what waited passes");
        }

        // What stands still can be cut.
        proxy.stand_still();
        one.say("f").unwrap();
        proxy.cut();
        assert!(one.has_ended() && new.has_ended());
        proxy.heal();
        until("connections are forgotten", || proxy.shared.state().open.is_empty().then_some(()));
        assert!(Client::of(&proxy).asks("g"));
    }

    #[test]
    fn an_end_is_passed_on_and_a_server_that_is_away_is_none() {
        let proxy = Proxy::before(&echo()).unwrap();
        let mut one = Client::of(&proxy);
        one.say("a").unwrap();
        one.0.get_ref().shutdown(Shutdown::Write).unwrap();
        assert_eq!((one.hear(LONG).unwrap().as_str(), one.hear(LONG).unwrap().as_str()), ("a", ""), "the answer comes before the end");

        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
        assert!(Client::of(&Proxy::before(&nobody).unwrap()).has_ended());
    }
}
