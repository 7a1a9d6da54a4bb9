//! The lines of a file that goes by: a CSV reader knows where a record begins only up to the line's end before it.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

/// A reader that is asked, from the file's beginning on, in which line a place lies.
pub(super) struct Lines<R> {
    inner: R,
    read_bytes: u64,
    /// Where lines end that went by and were not asked for yet: the place of each `\r` and `\n`, and whether it is `\n`.
    ends: VecDeque<(u64, bool)>,
    line: u64,
}

impl<R> Lines<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            read_bytes: 0,
            ends: VecDeque::new(),
            line: 1,
        }
    }

    /// The line, from 1, of the first byte at or after a place that ends no line. Places never go back.
    pub(super) fn line_at(&mut self, mut place: u64) -> u64 {
        while let Some((end, is_newline)) = self.ends.front()
            && *end <= place
        {
            place += u64::from(*end == place);
            self.line += u64::from(*is_newline);
            self.ends.pop_front();
        }
        self.line
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let ends = memchr::memchr2_iter(b'\r', b'\n', &buffer[..count]);
        let ends = ends.map(|at| (self.read_bytes + at as u64, buffer[at] == b'\n'));
        self.ends.extend(ends);
        self.read_bytes += count as u64;
        Ok(count)
    }
}
