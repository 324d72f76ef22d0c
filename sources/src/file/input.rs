//! Files as plain bytes, whatever they are compressed with.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Decompress, FlushDecompress, Status};
use twox_hash::XxHash64;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of compressed input read at once.
const BUFFER: usize = 256 << 10;

/// Opens a file behind so many bytes of its contents, and unpacks it as its first bytes say. Bytes read of the file
/// itself are counted in `read`.
///
/// # Errors
/// The file cannot be read, or has fewer bytes (`UnexpectedEof`).
pub(super) fn open(path: &Path, from: u64, read: &Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
    let mut input = BufReader::with_capacity(BUFFER, Counted { file: fs::File::open(path)?, read: read.clone() });
    let start = input.fill_buf()?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if start.starts_with(&GZIP) {
        behind(Gzip::new(input), from)
    } else if start.starts_with(&ZSTD) {
        behind(Sips(zstd::Decoder::with_buffer(input)?), from)
    } else if !start.is_empty() && ["gz", "zst"].contains(&extension) {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the name ends with .{extension}, but the file does not begin as such files do"),
        ))
    } else {
        // Pipes cannot seek, and are read from their beginning.
        if from > 0 {
            if input.get_ref().file.metadata()?.len() < from {
                return Err(shorter(from));
            }
            input.seek(io::SeekFrom::Start(from))?;
            read.store(from, Ordering::Relaxed);
        }
        Ok(Box::new(Plain(input)))
    }
}

/// What follows behind so many bytes.
fn behind<'a>(mut input: impl Read + Send + 'a, from: u64) -> io::Result<Box<dyn Read + Send + 'a>> {
    let passed = io::copy(&mut input.by_ref().take(from), &mut io::sink())?;
    if passed < from { Err(shorter(from)) } else { Ok(Box::new(input)) }
}

fn shorter(from: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file has fewer than the {from} bytes that were read of it before"))
}

/// What tells a file from another of the same name: a hash of its first bytes. How many they are is part of it, so a
/// file that grows stays the same.
///
/// # Errors
/// The file cannot be read.
pub(super) fn identity(path: &Path) -> io::Result<u64> {
    begins(path, MOST_BYTES)
}

/// Whether a file is the one of this identity.
///
/// # Errors
/// The file cannot be read.
pub(super) fn is(path: &Path, identity: u64) -> io::Result<bool> {
    Ok(begins(path, identity & COUNT)? == identity)
}

/// The bytes that identify a file, at most, and the bits that hold how many they are.
const MOST_BYTES: u64 = 4_096;
const COUNT: u64 = 0x1fff;

fn begins(path: &Path, bytes: u64) -> io::Result<u64> {
    let file = fs::File::open(path)?;
    // What comes out of a pipe is gone from it.
    if !file.metadata()?.is_file() {
        return Ok(0);
    }
    let mut start = Vec::new();
    let read = file.take(bytes).read_to_end(&mut start)? as u64;
    Ok((XxHash64::oneshot(0, &start) & !COUNT) | read)
}

/// The whole of a file, unpacked.
pub(super) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, 0, &Arc::default())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A plain file: what was read to look at its beginning, and then the file itself without a buffer between.
struct Plain(BufReader<Counted>);

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.buffer().is_empty() { self.0.get_mut().read(into) } else { self.0.read(into) }
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A file whose bytes are counted as they are read.
struct Counted {
    file: fs::File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(into)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Reads little at a time. When the decoder of `zstd` meets damage, what it has unpacked in the same call is lost.
struct Sips<R>(R);

impl<R: Read> Read for Sips<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const SIP: usize = 8 << 10;
        let sip = into.len().min(SIP);
        self.0.read(&mut into[..sip])
    }
}

/// A gzip stream of any number of members. Unlike the decoders of `flate2` it hands over every byte in front of
/// the damage before it tells of it.
struct Gzip<R> {
    input: R,
    member: Decompress,
    /// Nothing of the current member was read yet.
    fresh: bool,
    failure: Option<io::Error>,
}

impl<R: BufRead> Gzip<R> {
    fn new(input: R) -> Self {
        Gzip { input, member: Self::member(), fresh: true, failure: None }
    }

    fn member() -> Decompress {
        // The largest window that gzip allows.
        Decompress::new_gzip(15)
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        loop {
            let packed = self.input.fill_buf()?;
            if packed.is_empty() {
                return if self.fresh { Ok(0) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gzip stream is cut off")) };
            }
            if self.fresh && packed.iter().all(|b| *b == 0) {
                // Some tools fill the last block with zeros.
                let zeros = packed.len();
                self.input.consume(zeros);
                continue;
            }
            let (before_in, before_out) = (self.member.total_in(), self.member.total_out());
            let status = self.member.decompress(packed, into, FlushDecompress::None);
            let read = (self.member.total_in() - before_in) as usize;
            let unpacked = (self.member.total_out() - before_out) as usize;
            self.input.consume(read);
            self.fresh = false;
            match status {
                Ok(Status::StreamEnd) => {
                    self.member = Self::member();
                    self.fresh = true;
                }
                Ok(_) if unpacked == 0 && read == 0 => self.failure = Some(corrupt()),
                Ok(_) => {}
                Err(_) => self.failure = Some(corrupt()),
            }
            match self.failure.take() {
                Some(failure) if unpacked == 0 => return Err(failure),
                failure => self.failure = failure,
            }
            if unpacked > 0 || into.is_empty() {
                return Ok(unpacked);
            }
        }
    }
}

fn corrupt() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the gzip stream is corrupt")
}
