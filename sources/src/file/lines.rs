//! A stream of bytes as blocks of whole lines.

use std::io::{self, Read};

/// Bytes read at once.
const BLOCK: usize = 1 << 20;
/// The longest line that is taken in.
pub(super) const LONGEST: usize = 16 << 20;
/// Of a longer line, as much as is kept to be looked at.
const KEPT: usize = 64 << 10;

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Whole lines with the ends that they have; the last line of a file may have none.
    Lines(&'a [u8]),
    /// The beginning of a line that is too long, and its length.
    Oversize(&'a [u8], u64),
    /// The bytes of a line that the damage behind them cut off.
    Severed(&'a [u8]),
}

/// The lines of an input.
pub(super) struct Lines<R> {
    input: R,
    block: usize,
    buffer: Vec<u8>,
    /// Bytes at the beginning of the buffer that were handed over.
    used: usize,
    /// Bytes of the input before the buffer.
    before: u64,
    ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self::in_blocks_of(BLOCK, input)
    }

    pub(super) fn in_blocks_of(block: usize, input: R) -> Self {
        Lines { input, block, buffer: Vec::new(), used: 0, before: 0, ended: false, failure: None }
    }

    /// Lines of an input of which so many bytes were passed.
    pub(super) fn behind(mut self, offset: u64) -> Self {
        self.before = offset;
        self
    }

    /// Bytes of the input that were handed over.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.used as u64
    }

    /// What ended the input before its end, once all before it was handed over.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// The next piece, which ends at `until` at the latest; `None` at the end or at the damage.
    pub(super) fn next(&mut self, until: u64) -> Option<Piece<'_>> {
        self.buffer.drain(..self.used);
        self.before += self.used as u64;
        self.used = 0;
        let room = usize::try_from(until.saturating_sub(self.before)).unwrap_or(usize::MAX);
        let mut searched = 0;
        loop {
            if self.buffer.len() > LONGEST && memchr::memchr(b'\n', &self.buffer[..=LONGEST]).is_none() {
                return Some(self.skip_line());
            }
            if let Some(end) = memchr::memrchr(b'\n', &self.buffer[searched..]) {
                self.used = room.min(searched + end + 1);
                return Some(Piece::Lines(&self.buffer[..self.used]));
            }
            // Whether a line without an end was severed is known only behind it.
            if self.ended || self.buffer.len() > room {
                return self.rest(room);
            }
            searched = self.buffer.len();
            self.fill();
        }
    }

    fn fill(&mut self) {
        let known = self.buffer.len();
        self.buffer.reserve(self.block);
        // What was read before an error is in the buffer.
        match self.input.by_ref().take(self.block as u64).read_to_end(&mut self.buffer) {
            Ok(_) => self.ended = self.buffer.len() - known < self.block,
            Err(error) => {
                self.ended = true;
                self.failure = Some(error);
            }
        }
    }

    /// What has no end of a line behind it.
    fn rest(&mut self, room: usize) -> Option<Piece<'_>> {
        self.used = room.min(self.buffer.len());
        if self.used == 0 {
            return None;
        }
        let severed = self.ended && self.failure.is_some();
        Some(if severed { Piece::Severed(&self.buffer[..self.used]) } else { Piece::Lines(&self.buffer[..self.used]) })
    }

    /// Passes a line that is too long, keeping its beginning at the beginning of the buffer.
    fn skip_line(&mut self) -> Piece<'_> {
        let mut length = KEPT as u64;
        loop {
            let end = memchr::memchr(b'\n', &self.buffer[KEPT..]).map(|at| at + 1);
            let passed = end.unwrap_or(self.buffer.len() - KEPT);
            length += passed as u64;
            self.buffer.drain(KEPT..KEPT + passed);
            if end.is_some() || self.ended {
                self.used = KEPT;
                self.before += length - KEPT as u64;
                return Piece::Oversize(&self.buffer[..KEPT], length);
            }
            self.fill();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(block: usize, input: impl Read) -> (Vec<Vec<u8>>, u64, bool) {
        all_by(block, input, u64::MAX)
    }

    /// All pieces, read up to one offset at first.
    fn all_by(block: usize, input: impl Read, stop: u64) -> (Vec<Vec<u8>>, u64, bool) {
        let mut lines = Lines::in_blocks_of(block, input);
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut until = stop;
        loop {
            if lines.offset() >= until {
                assert_eq!(lines.offset(), until);
                until = u64::MAX;
            }
            let Some(piece) = lines.next(until) else { break };
            match piece {
                Piece::Lines(block) => found.extend(block.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec)),
                Piece::Oversize(kept, length) => found.push([kept, format!("… {length}").as_bytes()].concat()),
                Piece::Severed(part) => found.push([b"severed ", part].concat()),
            }
        }
        (found, lines.offset(), lines.failure().is_some())
    }

    /// An input that breaks behind its bytes.
    struct Breaks<'a>(&'a [u8]);

    impl Read for Breaks<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("broken")) } else { self.0.read(into) }
        }
    }

    proptest! {
        #[test]
        fn where_blocks_are_cut_makes_no_difference(text in prop::collection::vec(prop::sample::select(b"ab\n\r ".to_vec()), 0..200), block in 1..40_usize) {
            let expected: Vec<Vec<u8>> = text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            prop_assert_eq!(all(block, text.as_slice()), (expected, text.len() as u64, false));
        }

        #[test]
        fn reading_can_stop_at_every_end_of_a_line(text in "[ab\n]{0,60}", block in 1..40_usize, broken: bool) {
            let read = |stop| if broken { all_by(block, Breaks(text.as_bytes()), stop) } else { all_by(block, text.as_bytes(), stop) };
            let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at as u64 + 1);
            for stop in ends.chain([text.len() as u64]) {
                prop_assert_eq!(read(stop), read(u64::MAX), "stopped at {}", stop);
            }
        }

        #[test]
        fn everything_before_the_damage_is_handed_over(text in "[ab\n]{0,60}", block in 1..40_usize) {
            let mut expected: Vec<Vec<u8>> = text.as_bytes().split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            if let Some(last) = expected.last_mut().filter(|l| l.last() != Some(&b'\n')) {
                *last = [b"severed ", last.as_slice()].concat();
            }
            prop_assert_eq!(all(block, Breaks(text.as_bytes())), (expected, text.len() as u64, true));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed() {
        for end in ["\n", ""] {
            let long = [vec![b'x'; LONGEST + 100_000], end.as_bytes().to_vec()].concat();
            let last: &[u8] = if end.is_empty() { b"" } else { b"last\n" };
            let text = [b"first\n", long.as_slice(), last].concat();
            let (found, offset, _) = all(BLOCK, text.as_slice());
            let kept = [vec![b'x'; KEPT], format!("… {}", long.len()).into_bytes()].concat();
            assert_eq!(found[0], b"first\n");
            assert!(found[1] == kept);
            assert_eq!(found.get(2).map(Vec::as_slice), if end.is_empty() { None } else { Some(&b"last\n"[..]) });
            assert_eq!(offset, text.len() as u64);
        }
    }
}
