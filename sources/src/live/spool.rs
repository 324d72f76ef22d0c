//! What was heard, durably and in order: a venue says everything once, so whoever may be killed writes it down first.
//!
//! A spool is a folder of segments. A segment is named after the number of its first frame and holds frames one behind
//! the other, each with its length and a checksum, so that a frame is known by its number alone and what a crash tore is seen.
//! One thread writes what has come, and readers see it at once: the end of a process takes nothing of it back. Another thread
//! ([`Keeper`]) waits for the disk and says how far that has it. What has come from a frame is stored only when the disk has the
//! frame (see [`Reader::kept`](crate::Reader::kept)), so a power failure takes nothing back that anything stored depends on, and no
//! frame waits for the disk on its way.
//!
//! Segments are removed when everything in them is settled. A spool remembers when it was made, by which a position in another
//! one is told from a position in it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use model::time::{self, Micros};
use tokio::sync::watch;

use crate::{Position, SourceError};

/// A segment is closed when it is larger.
const SEGMENT: u64 = 64 << 20;
/// Bytes before a frame: the length of what follows, and its checksum.
const HEAD: usize = 8;
/// The longest frame; a venue's listing has some ten megabytes.
const LONGEST: usize = 256 << 20;
/// Bytes for which the batch of all keeps room when it is empty.
const KEPT: usize = 1 << 20;
/// Bytes for which the batch of a connection keeps room when it is empty.
const KEPT_BY_ONE: usize = 16 << 10;
/// Bytes read at once.
const BLOCK: usize = 1 << 20;
/// Bytes that are given back to the disk at once: a core is held up for a millisecond by each megabyte.
const STEP: u64 = 1 << 20;
/// How long others have the core after each such step.
const PAUSE: Duration = Duration::from_millis(1);
/// What the name of a segment ends with that is settled and about to be removed.
const SETTLED: &str = "settled";
/// The file that says when the spool was made.
const IDENTITY: &str = "made";

/// A frame with what is known about it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard<'a> {
    /// When it came.
    pub(super) receive_time: Micros,
    /// The connection that it came over; 0 where it came over none.
    pub(super) connection: u32,
    /// The dialect it is written in.
    pub(super) dialect: &'a str,
    /// What it was asked for; empty where it says so itself.
    pub(super) topic: &'a str,
    /// Its bytes.
    pub(super) payload: &'a [u8],
}

impl<'a> Heard<'a> {
    /// Appends its bytes as a segment holds them.
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        out.extend_from_slice(&self.receive_time.to_le_bytes());
        out.extend_from_slice(&self.connection.to_le_bytes());
        for label in [self.dialect, self.topic] {
            out.push(u8::try_from(label.len()).expect("labels are short"));
            out.extend_from_slice(label.as_bytes());
        }
        out.extend_from_slice(self.payload);
        let body = &out[start + HEAD..];
        let (length, sum) = (u32::try_from(body.len()).expect("frames are bounded"), crc32fast::hash(body));
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    /// The first of some frames, with the bytes that it takes. `None` where it is not whole.
    fn first(bytes: &'a [u8]) -> Result<Option<(Heard<'a>, usize)>, Torn> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, sum @ ..] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > LONGEST {
            return Err(Torn);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        if crc32fast::hash(body) != u32::from_le_bytes(sum) {
            return Err(Torn);
        }
        let (time, rest) = body.split_first_chunk().ok_or(Torn)?;
        let (connection, mut rest) = rest.split_first_chunk().ok_or(Torn)?;
        let mut label = || {
            let (length, behind) = rest.split_first().ok_or(Torn)?;
            let (label, behind) = behind.split_at_checked(usize::from(*length)).ok_or(Torn)?;
            rest = behind;
            std::str::from_utf8(label).map_err(|_| Torn)
        };
        let (dialect, topic) = (label()?, label()?);
        let (receive_time, connection) = (i64::from_le_bytes(*time), u32::from_le_bytes(*connection));
        Ok(Some((Heard { receive_time, connection, dialect, topic, payload: rest }, HEAD + length)))
    }
}

/// Frames on their way to the spool.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: u64,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    pub(super) fn push(&mut self, heard: Heard<'_>) {
        self.frames += 1;
        heard.write(&mut self.bytes);
    }

    /// Its frames.
    #[cfg(test)]
    pub(super) fn heard(&self) -> impl Iterator<Item = Heard<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (heard, length) = Heard::first(rest).ok()??;
            rest = &rest[length..];
            Some(heard)
        })
    }

    /// Appends another, which is empty then. Each keeps its own room: of those that are appended there are many, and they need little.
    pub(super) fn append(&mut self, other: &mut Batch) {
        self.bytes.extend_from_slice(&other.bytes);
        self.frames += other.frames;
        other.empty(KEPT_BY_ONE);
    }

    /// Takes everything out of the batch of all.
    pub(super) fn clear(&mut self) {
        self.empty(KEPT);
    }

    /// Takes everything out. Memory that a burst took goes with it.
    fn empty(&mut self, kept: usize) {
        self.frames = 0;
        self.bytes.clear();
        self.bytes.shrink_to(kept);
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug)]
struct Torn;

/// How far a spool is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The number of the next frame.
    pub(super) next: u64,
    /// The segment that is written, named by its first frame.
    segment: u64,
    /// Its bytes.
    length: u64,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    file: Arc<File>,
    tail: Tail,
    /// A segment is closed when it is larger.
    segment: u64,
    /// Bytes that a write which failed has left behind the tail.
    dirty: bool,
    told: watch::Sender<Tail>,
    written: Arc<Written>,
}

/// What is written, for who waits for the disk.
#[derive(Debug)]
struct Written {
    state: Mutex<WrittenState>,
    more: Condvar,
}

#[derive(Clone, Debug)]
struct WrittenState {
    /// The segment that is written. Those before it are on disk.
    file: Arc<File>,
    /// The number of the next frame.
    next: u64,
    /// Nothing is written any more.
    over: bool,
}

/// Waits for the disk.
#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    written: Arc<Written>,
    kept: watch::Sender<u64>,
}

/// What a spool is opened as.
pub(super) struct Spool {
    pub(super) writer: Writer,
    pub(super) keeper: Keeper,
    pub(super) identity: u64,
    pub(super) tail: watch::Receiver<Tail>,
    /// The last frame that is on disk.
    pub(super) kept: watch::Receiver<u64>,
}

impl Spool {
    /// Opens a spool for the one who writes it, or makes one. What a crash tore off its end is cut off: nobody was told of it.
    pub(super) fn open(folder: &Path) -> io::Result<Spool> {
        fs::create_dir_all(folder)?;
        let identity = identity(folder)?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == SETTLED)
                && let Err(error) = fs::remove_file(path)
                // Whoever was about to remove it may still be at it.
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        let segments = segments(folder)?;
        let mut tail = Tail { next: 1, segment: 1, length: 0 };
        if let Some(last) = segments.last() {
            let (frames, length) = measure(&path(folder, *last))?;
            tail = Tail { next: last + frames, segment: *last, length };
            let torn = fs::metadata(path(folder, *last))?.len() - length;
            if torn > 0 {
                tracing::warn!(folder = %folder.display(), "{torn} bytes behind frame {} are cut off: a crash tore them", tail.next - 1);
            }
        }
        let file = File::options().create(true).truncate(false).write(true).open(path(folder, tail.segment))?;
        file.set_len(tail.length)?;
        file.sync_all()?;
        sync(folder)?;
        let (told, seen) = watch::channel(tail);
        let (keeps, kept) = watch::channel(tail.next - 1);
        let file = Arc::new(file);
        let state = Mutex::new(WrittenState { file: file.clone(), next: tail.next, over: false });
        let written = Arc::new(Written { state, more: Condvar::new() });
        let keeper = Keeper { folder: folder.into(), written: written.clone(), kept: keeps };
        let writer = Writer { folder: folder.into(), file, tail, segment: SEGMENT, dirty: false, told, written };
        Ok(Spool { writer, keeper, identity, tail: seen, kept })
    }
}

impl Writer {
    /// Appends frames, as [`Heard::write`] gives them. After an error nothing has changed, and the same may be tried again.
    pub(super) fn append(&mut self, Batch { frames, bytes }: &Batch) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(self.tail.length)?;
            self.dirty = false;
        }
        if self.tail.length > self.segment {
            // A segment that another one follows is whole.
            self.file.sync_data()?;
            let file = File::options().create(true).truncate(true).write(true).open(path(&self.folder, self.tail.next))?;
            self.file = Arc::new(file);
            (self.tail.segment, self.tail.length) = (self.tail.next, 0);
        }
        self.dirty = true;
        self.file.write_all_at(bytes, self.tail.length)?;
        self.dirty = false;
        self.tail.length += bytes.len() as u64;
        self.tail.next += frames;
        self.told.send_replace(self.tail);
        self.written.set(|state| (state.file, state.next) = (self.file.clone(), self.tail.next));
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.written.set(|state| state.over = true);
    }
}

impl Written {
    fn set(&self, change: impl FnOnce(&mut WrittenState)) {
        change(&mut self.state.lock().expect("nobody panics with it"));
        self.more.notify_one();
    }
}

impl Keeper {
    /// Waits for the disk until nothing is written any more, and says how far it is.
    ///
    /// # Errors
    /// The disk fails. Nobody knows then what it has of what was written since: nothing beyond what was said may be relied on.
    pub(super) fn run(self) -> io::Result<()> {
        let mut file: Option<Arc<File>> = None;
        loop {
            let state = self.written.state.lock().expect("nobody panics with it");
            let kept = *self.kept.borrow();
            let idle = |state: &mut WrittenState| state.next == kept + 1 && !state.over;
            let written = self.written.more.wait_while(state, idle).expect("nobody panics with it").clone();
            if written.next == kept + 1 {
                return Ok(());
            }
            written.file.sync_data()?;
            if file.is_none_or(|before| !Arc::ptr_eq(&before, &written.file)) {
                // The name of a segment is in the folder.
                sync(&self.folder)?;
            }
            file = Some(written.file);
            self.kept.send_replace(written.next - 1);
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Cursor {
    folder: PathBuf,
    /// The segment at hand; none before the first frame.
    file: Option<File>,
    segment: u64,
    /// The number of the next frame.
    next: u64,
    /// Where it begins in the segment.
    offset: u64,
    block: Vec<u8>,
    /// Bytes of the block that were taken.
    taken: usize,
}

impl Cursor {
    /// A cursor before a frame that is there, or before the next one to be written; without one, before all that are there.
    pub(super) fn open(folder: &Path, next: Option<u64>, tail: Tail) -> Result<Cursor, SourceError> {
        let segments = segments(folder).map_err(|error| unreadable(folder, &error))?;
        let first = segments.first().copied().unwrap_or(tail.segment);
        let next = next.unwrap_or(first);
        if next < first || next > tail.next {
            let has = format!("the spool has frames {first} to {}", tail.next - 1);
            return Err(SourceError {
                transient: false,
                place: folder.display().to_string(),
                what: format!("frame {next} is to be read next, and {has}"),
                remedy: "bring back the segments that are gone, or begin anew with `--fresh`".into(),
            });
        }
        let segment = segments.iter().rfind(|first| **first <= next).copied().unwrap_or(first);
        let mut cursor = Cursor { folder: folder.into(), file: None, segment, next: segment, offset: 0, block: Vec::new(), taken: 0 };
        while cursor.next < next {
            cursor.take(tail, |_, _| ())?;
        }
        Ok(cursor)
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Gives the next frame with its number, if there is one before the tail.
    pub(super) fn take(&mut self, tail: Tail, mut give: impl FnMut(u64, Heard<'_>)) -> Result<bool, SourceError> {
        loop {
            if self.next >= tail.next {
                return Ok(false);
            }
            match Heard::first(&self.block[self.taken..]) {
                Ok(Some((heard, bytes))) => {
                    give(self.next, heard);
                    self.taken += bytes;
                    self.offset += bytes as u64;
                    self.next += 1;
                    return Ok(true);
                }
                Err(Torn) => return Err(self.damaged("the checksum of the frame is another")),
                Ok(None) => {
                    if !self.fill(tail)? {
                        return Err(self.damaged("the segment ends within the frame"));
                    }
                }
            }
        }
    }

    /// Reads more of the segment, or goes on to the next; `false` where neither has more.
    fn fill(&mut self, tail: Tail) -> Result<bool, SourceError> {
        let place = path(&self.folder, self.segment);
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&place).map_err(|error| unreadable(&place, &error))?),
        };
        self.block.drain(..self.taken);
        self.taken = 0;
        let had = self.block.len();
        let at = self.offset + had as u64;
        let more = if self.segment == tail.segment { tail.length.saturating_sub(at).min(BLOCK as u64) as usize } else { BLOCK };
        self.block.resize(had + more, 0);
        let read = read_at(file, &mut self.block[had..], at).map_err(|error| unreadable(&place, &error))?;
        self.block.truncate(had + read);
        if read > 0 {
            return Ok(true);
        }
        if had > 0 || self.segment == self.next {
            return Ok(false);
        }
        // The segment ends behind a frame, and the next one begins with the next.
        (self.segment, self.offset, self.file) = (self.next, 0, None);
        Ok(true)
    }

    /// Takes what lies wholly before a frame out of the spool, but for the segment at hand. What it gives is for [`remove`].
    pub(super) fn forget_before(&self, number: u64) -> io::Result<Vec<PathBuf>> {
        let mut forgotten = Vec::new();
        for pair in segments(&self.folder)?.windows(2) {
            let [first, following] = *pair else { break };
            if following > number || first >= self.segment {
                break;
            }
            let segment = path(&self.folder, first);
            let settled = segment.with_extension(SETTLED);
            fs::rename(segment, &settled)?;
            forgotten.push(settled);
        }
        Ok(forgotten)
    }

    fn damaged(&self, what: &str) -> SourceError {
        SourceError {
            transient: false,
            place: format!("{}, byte {}, frame {}", path(&self.folder, self.segment).display(), self.offset, self.next),
            what: what.into(),
            remedy: "restore the segment from a copy, or begin anew with `--fresh` after removing the spool's folder".into(),
        }
    }
}

/// The position of a frame.
pub(super) fn position(identity: u64, number: u64) -> Position {
    Position { part: "spool".into(), offset: number, frame: number, identity }
}

fn unreadable(place: &Path, error: &io::Error) -> SourceError {
    SourceError {
        transient: !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied),
        place: place.display().to_string(),
        what: error.to_string(),
        remedy: "see whether the data folder is whole and may be read".into(),
    }
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.frames"))
}

/// Removes what is settled, bit by bit: the kernel gives a file's room back without letting anybody else have the core.
pub(super) fn remove(settled: &[PathBuf]) -> io::Result<()> {
    for path in settled {
        let file = File::options().write(true).open(path)?;
        let mut length = file.metadata()?.len();
        while length > 0 {
            length = length.saturating_sub(STEP);
            file.set_len(length)?;
            thread::sleep(PAUSE);
        }
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The first frames of the segments of a spool, ascending.
fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_suffix(".frames")?.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// How many whole frames a segment has, and how many bytes they take.
fn measure(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut frames, mut length, mut bytes) = (0, 0, Vec::new());
    loop {
        let had = bytes.len();
        bytes.resize(had + BLOCK, 0);
        let read = file.read(&mut bytes[had..])?;
        bytes.truncate(had + read);
        let mut taken = 0;
        while let Ok(Some((_, one))) = Heard::first(&bytes[taken..]) {
            taken += one;
            frames += 1;
        }
        length += taken as u64;
        bytes.drain(..taken);
        if read == 0 {
            return Ok((frames, length));
        }
    }
}

/// When the spool was made, in microseconds since 1970.
fn identity(folder: &Path) -> io::Result<u64> {
    let path = folder.join(IDENTITY);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{} holds no number", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = time::now().unsigned_abs();
            // Whole or not at all.
            let draft = folder.join("made.new");
            let mut file = File::create(&draft)?;
            writeln!(file, "{made}")?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync(folder)?;
            Ok(made)
        }
        Err(error) => Err(error),
    }
}

/// Lets the disk have the names in a folder.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads as much as there is and fits.
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(number: u64) -> Vec<u8> {
        // Of any length, some longer than what is read at once.
        let length = if number.is_multiple_of(97) { BLOCK + 17 } else { (number * 31 % 200) as usize };
        let mut payload = format!("{number}:").into_bytes();
        payload.resize(payload.len() + length, b'x');
        payload
    }

    fn put(writer: &mut Writer, numbers: std::ops::RangeInclusive<u64>) {
        let mut batch = Batch::default();
        for number in numbers {
            let topic = if number.is_multiple_of(3) { "BTCUSDT@depth" } else { "" };
            batch.push(Heard {
                receive_time: number as i64,
                connection: number as u32 % 3,
                dialect: "binance_spot",
                topic,
                payload: &payload(number),
            });
        }
        writer.append(&batch).unwrap();
    }

    /// The numbers that are read from one on, each checked to be what was put.
    fn read(folder: &Path, from: Option<u64>, tail: Tail) -> Vec<u64> {
        let mut cursor = Cursor::open(folder, from, tail).unwrap();
        let mut numbers = Vec::new();
        while cursor
            .take(tail, |number, heard| {
                assert_eq!((heard.receive_time, heard.dialect, heard.payload), (number as i64, "binance_spot", &*payload(number)));
                assert_eq!(heard.topic.is_empty(), !number.is_multiple_of(3));
                numbers.push(number);
            })
            .unwrap()
        {}
        numbers
    }

    #[test]
    fn frames_are_read_as_they_were_written_from_any_number_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        assert!(read(folder.path(), None, *spool.tail.borrow()).is_empty());
        put(&mut spool.writer, 1..=1);
        put(&mut spool.writer, 2..=300);
        let identity = spool.identity;
        drop(spool);
        let mut spool = Spool::open(folder.path()).unwrap();
        assert_eq!(spool.identity, identity, "it is the same spool");
        put(&mut spool.writer, 301..=302);
        let tail = *spool.tail.borrow();
        for from in [1, 2, 97, 98, 250, 302, 303] {
            assert!(read(folder.path(), Some(from), tail).into_iter().eq(from..=302), "from {from}");
        }
        let error = Cursor::open(folder.path(), Some(304), tail).unwrap_err();
        assert!(error.what.contains("frame 304 is to be read next, and the spool has frames 1 to 302"), "{error}");
    }

    /// Whoever waits for the disk is told of everything that was written, over segments and the end.
    #[test]
    fn what_was_written_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let Spool { mut writer, keeper, mut kept, .. } = Spool::open(folder.path()).unwrap();
        writer.segment = 100;
        assert_eq!(*kept.borrow(), 0);
        let keeper = std::thread::spawn(move || keeper.run());
        let on = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for number in 1..=20 {
            put(&mut writer, number..=number);
            if number % 5 == 0 {
                on.block_on(kept.wait_for(|kept| *kept == number)).unwrap();
            }
        }
        put(&mut writer, 21..=23);
        drop(writer);
        keeper.join().unwrap().unwrap();
        assert_eq!(*kept.borrow(), 23);
        assert!(segments(folder.path()).unwrap().len() > 2);
        assert_eq!(*Spool::open(folder.path()).unwrap().kept.borrow(), 23);
    }

    #[test]
    fn segments_end_and_are_removed_when_they_are_settled() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        let mut batch = Batch::default();
        batch.push(Heard { receive_time: 0, connection: 0, dialect: "d", topic: "", payload: &[b'y'; 400] });
        spool.writer.segment = 1_000;
        for _ in 0..7 {
            spool.writer.append(&batch).unwrap();
        }
        let tail = *spool.tail.borrow();
        assert_eq!(segments(folder.path()).unwrap(), [1, 4, 7]);
        let mut cursor = Cursor::open(folder.path(), None, tail).unwrap();
        let mut take = |count: usize| (0..count).filter(|_| cursor.take(tail, |_, _| ()).unwrap()).count();
        assert_eq!(take(9), 7);
        assert!(cursor.forget_before(3).unwrap().is_empty(), "frame 3 is not settled");
        assert_eq!(segments(folder.path()).unwrap(), [1, 4, 7]);
        let settled = cursor.forget_before(5).unwrap();
        assert_eq!(segments(folder.path()).unwrap(), [4, 7]);
        assert_eq!(settled.iter().filter(|path| path.exists()).count(), 1);
        remove(&settled).unwrap();
        assert!(!settled[0].exists());
        let gone = Cursor::open(folder.path(), Some(3), tail).unwrap_err();
        assert!(gone.what.contains("the spool has frames 4 to 7"), "{gone}");
        drop(spool);
        let settled = cursor.forget_before(7).unwrap();
        assert!(settled[0].exists());
        let spool = Spool::open(folder.path()).unwrap();
        assert_eq!(*spool.tail.borrow(), tail);
        assert!(!settled[0].exists(), "what an earlier run has not removed is removed");
    }

    #[test]
    fn damage_is_an_error_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        put(&mut spool.writer, 1..=9);
        let tail = *spool.tail.borrow();
        let place = path(folder.path(), 1);
        let mut bytes = fs::read(&place).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        fs::write(&place, bytes).unwrap();
        let mut cursor = Cursor::open(folder.path(), None, tail).unwrap();
        let error = loop {
            match cursor.take(tail, |_, _| ()) {
                Ok(more) => assert!(more, "the damage was passed over"),
                Err(error) => break error,
            }
        };
        assert!(error.place.contains("frame 9") && error.what.contains("checksum"), "{error}");
    }

    proptest! {
        // Each waits for the disk some ten times.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever a crash leaves of what nobody was told of, everything that somebody was told of is there, and what is
        /// written next follows it.
        #[test]
        fn what_a_crash_tears_is_cut_off(told in 1..40_u64, torn in 0..40_u64, share in 0.0..1.0_f64, rubbish in any::<bool>()) {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::open(folder.path()).unwrap();
            put(&mut spool.writer, 1..=told);
            let before = *spool.tail.borrow();
            if torn > 0 {
                put(&mut spool.writer, told + 1..=told + torn);
            }
            let after = *spool.tail.borrow();
            drop(spool);
            let left = before.length + ((after.length - before.length) as f64 * share) as u64;
            let file = File::options().write(true).open(path(folder.path(), 1)).unwrap();
            file.set_len(left).unwrap();
            if rubbish {
                file.set_len(left + 100).unwrap();
            }
            let mut spool = Spool::open(folder.path()).unwrap();
            let tail = *spool.tail.borrow();
            prop_assert!(tail.next > told && tail.next <= told + torn + 1);
            put(&mut spool.writer, tail.next..=tail.next + 2);
            let found = read(folder.path(), None, *spool.tail.borrow());
            prop_assert!(found.into_iter().eq(1..=tail.next + 2));
        }
    }
}
