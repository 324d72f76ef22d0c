//! A server's bad day, to order: an HTTP proxy that refuses requests or loses their answers.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The server does not see it; the client is given this status and text.
    Refuse(u16, &'static str),
    /// The server does what it was asked to; the client loses the connection before it hears of it.
    LoseAnswer,
    /// The connection breaks before the server sees anything.
    Break,
}

/// A proxy on a port of its own. Connections end with the process.
pub struct Proxy {
    port: u16,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Proxy {
    /// Stands before the HTTP server at `http://host:port`. The next requests whose head contains `marker` meet the
    /// faults, one each; all others pass.
    pub fn before(url: &str, marker: &'static str) -> io::Result<Self> {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Proxy { port: listener.local_addr()?.port(), faults: Arc::default() };
        let faults = proxy.faults.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, faults) = (server.clone(), faults.clone());
                // A connection that breaks concerns its client only.
                thread::spawn(move || serve(&client, &server, marker, &faults).unwrap_or_default());
            }
        });
        Ok(proxy)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the next marked requests meet.
    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().expect("no proxy panics").extend(faults);
    }

    /// Nothing is met any more.
    pub fn heal(&self) {
        self.faults.lock().expect("no proxy panics").clear();
    }

    /// How many faults no request has met yet.
    pub fn left(&self) -> usize {
        self.faults.lock().expect("no proxy panics").len()
    }
}

fn serve(client: &TcpStream, server: &str, marker: &str, faults: &Mutex<VecDeque<Fault>>) -> io::Result<()> {
    let mut requests = BufReader::new(client);
    while let Some((head, body)) = message(&mut requests, false)? {
        let marked = String::from_utf8_lossy(&head).contains(marker);
        let fault = marked.then(|| faults.lock().expect("no proxy panics").pop_front()).flatten();
        let mut client = client;
        match fault {
            Some(Fault::Refuse(status, text)) => {
                write!(client, "HTTP/1.1 {status} Refused\r\nContent-Length: {}\r\n\r\n{text}", text.len())?;
                continue;
            }
            Some(Fault::Break) => return client.shutdown(Shutdown::Both),
            Some(Fault::LoseAnswer) | None => {}
        }
        let mut upstream = TcpStream::connect(server)?;
        upstream.write_all(&head)?;
        upstream.write_all(&body)?;
        let (head, body) = message(&mut BufReader::new(upstream), head.starts_with(b"HEAD "))?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if fault.is_some() {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&head)?;
        client.write_all(&body)?;
    }
    Ok(())
}

/// A request or an answer as it came: its head and its body, in whatever framing. A `bare` answer tells how long a body is that
/// it does not have.
fn message(stream: &mut impl BufRead, bare: bool) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim));
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let start = body.len();
            stream.read_until(b'\n', &mut body)?;
            let size = String::from_utf8_lossy(&body[start..]).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            io::copy(&mut stream.by_ref().take(size as u64 + 2), &mut body)?;
            if size == 0 {
                break;
            }
        }
    } else if !bare {
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        io::copy(&mut stream.by_ref().take(length), &mut body)?;
    }
    Ok(Some((head, body)))
}
