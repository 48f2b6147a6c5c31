//! A second witness of how far the store has come.
//!
//! SQLite takes a damaged frame of its log for the place where a dying process stopped writing, and
//! leaves out everything from there on, without a word. The mark says which commit was known to be
//! on the disk, so that a log which has become shorter than that is noticed.
//!
//! The mark is written after the sync of the commit that it names and is not synced itself: it need
//! not be. When the machine stops, the disk has the mark of this commit or of an earlier one, which
//! are both true. It can be late, and never ahead.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// The file beside the store.
const NAME: &str = "journal.mark";

/// How long the file is: it is written over in one piece, and lies in one sector.
const BYTES: usize = 128;

/// What is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The store it speaks of.
    pub(super) store_id: String,
    /// A commit that is on the disk.
    pub(super) commits: u64,
    /// A sync has failed, so what was acknowledged without one may be lost.
    pub(super) is_unsure: bool,
}

/// What a look at the file gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Mark(Mark),
    /// There is none.
    Missing,
    /// There is something else.
    Unreadable,
}

/// The file, open to be written.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    path: PathBuf,
}

impl MarkFile {
    /// Opens the mark in `directory`, or makes one that says nothing yet, and tells what is there.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if it cannot be used.
    pub(super) fn open(directory: &Path) -> Result<(Self, Found), OpenError> {
        let path = directory.join(NAME);
        let unusable = |source| OpenError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let (mut file, found) = match options.open(&path) {
            Ok(file) => (file, None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (options.create_new(true).open(&path).map_err(unusable)?, Some(Found::Missing))
            }
            Err(error) => return Err(unusable(error)),
        };
        let found = match found {
            Some(found) => found,
            None => {
                let mut text = Vec::new();
                (&mut file).take(2 * BYTES as u64).read_to_end(&mut text).map_err(unusable)?;
                Mark::parse(&text).map_or(Found::Unreadable, Found::Mark)
            }
        };
        Ok((Self { file, path }, found))
    }

    /// Tells what is there, and changes nothing.
    pub(super) fn peek(directory: &Path) -> Found {
        match std::fs::read(directory.join(NAME)) {
            Ok(text) => Mark::parse(&text).map_or(Found::Unreadable, Found::Mark),
            Err(error) if error.kind() == ErrorKind::NotFound => Found::Missing,
            Err(_) => Found::Unreadable,
        }
    }

    /// Writes over what is there.
    ///
    /// # Errors
    ///
    /// Why it could not be.
    pub(super) fn write(&self, mark: &Mark) -> io::Result<()> {
        self.file.write_all_at(&mark.to_bytes(), 0)
    }

    /// Writes over what is there and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if it could not be.
    pub(super) fn write_synced(&self, mark: &Mark) -> Result<(), OpenError> {
        self.write(mark)
            .and_then(|()| self.file.set_len(BYTES as u64))
            .and_then(|()| self.file.sync_all())
            .map_err(|source| OpenError::Io { path: self.path.clone(), source })
    }
}

impl Mark {
    /// One line for people, filled with spaces, with a sum at its end.
    fn to_bytes(&self) -> [u8; BYTES] {
        let word = if self.is_unsure { "unsure" } else { "whole" };
        let text = format!("{} {:020} {word}", self.store_id, self.commits);
        let mut bytes = [b' '; BYTES];
        let end = BYTES - "12345678\n".len();
        let length = text.len().min(end);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        let sum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(format!("{sum:08x}\n").as_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split_ascii_whitespace();
        let mark = Self {
            store_id: words.next()?.to_owned(),
            commits: words.next()?.parse().ok()?,
            is_unsure: words.next()? == "unsure",
        };
        // Whatever would not be written like this is not ours: the sum is part of the comparison.
        (mark.to_bytes() == bytes).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            store_id: "6f1e8f0a-6a3c-4a57-8a80-4f0f8e4fd1a2".to_owned(),
            commits: 123_456,
            is_unsure: false,
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_is_seen() {
        for mark in [mark(), Mark { is_unsure: true, commits: u64::MAX, ..mark() }] {
            let bytes = mark.to_bytes();
            assert_eq!(Mark::parse(&bytes), Some(mark));
            for bit in 0..8 * BYTES {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Mark::parse(&flipped), None, "bit {bit}");
            }
            for length in 0..BYTES {
                assert_eq!(Mark::parse(&bytes[..length]), None);
            }
        }
    }

    #[test]
    fn the_file_tells_what_was_written_last() {
        let directory = tempfile::tempdir().unwrap();
        let (file, found) = MarkFile::open(directory.path()).unwrap();
        assert_eq!(found, Found::Missing);
        file.write_synced(&mark()).unwrap();
        let later = Mark { commits: 7, ..mark() };
        file.write(&later).unwrap();
        assert_eq!(MarkFile::open(directory.path()).unwrap().1, Found::Mark(later));
        file.file.set_len(20).unwrap();
        assert_eq!(MarkFile::open(directory.path()).unwrap().1, Found::Unreadable);
    }
}
