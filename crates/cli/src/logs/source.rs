//! Where lines come from: a file with those that were put aside from it, or standard input.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest line that is kept, in bytes; of a longer one the beginning is.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// How much of a line that is too long is read at a time, in bytes.
const SKIPPED_BYTES: usize = 64 * 1024;

/// Highest number that is looked for beside a file, as `FILE.1`; a gap in the numbers is none in the
/// trail.
const ASIDE_MAX: u32 = 1000;

/// Lines, one after the other.
pub(super) struct Source {
    name: PathBuf,
    /// Files that were put aside, oldest first, that are still to be read.
    aside: VecDeque<PathBuf>,
    from: Box<dyn BufRead>,
    /// What is read of the file itself; `None` for standard input and for a file put aside.
    file: Option<Followed>,
    /// A line whose end has not come yet.
    rest: Vec<u8>,
    /// The rest belongs to a line of which enough is kept.
    is_cut: bool,
    /// The agent whose log this is, once it has said so.
    pub(super) agent: Option<String>,
}

/// A file as it was when it was opened.
struct Followed {
    id: (u64, u64),
    handle: File,
}

/// One line, without its end.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// More than was kept belongs to it.
    pub(super) is_cut: bool,
}

impl Source {
    /// Opens `path`, or standard input for `-`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut source = Self {
            name: path.to_owned(),
            aside: VecDeque::new(),
            from: Box::new(io::empty()),
            file: None,
            rest: Vec::new(),
            is_cut: false,
            agent: None,
        };
        if source.is_stdin() {
            source.from = Box::new(BufReader::new(io::stdin()));
            return Ok(source);
        }
        // Opened first: what is put aside from here on is read by its handle.
        source.reopen()?;
        let aside = (1..=ASIDE_MAX).map(|number| numbered(path, number));
        source.aside =
            aside.filter(|path| path.exists()).collect::<Vec<_>>().into_iter().rev().collect();
        if !source.aside.is_empty() {
            source.from = Box::new(io::empty());
        }
        Ok(source)
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.name == Path::new("-")
    }

    /// What to call it in an error.
    pub(super) fn name(&self) -> String {
        if self.is_stdin() { "standard input".into() } else { self.name.display().to_string() }
    }

    /// The next line, if there is one now. A line is given once its end has come, or once nothing
    /// can follow it.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if self.read_line()? {
                return Ok(Some(self.take()));
            }
            if let Some(path) = self.aside.pop_front() {
                self.from = Box::new(BufReader::new(File::open(path)?));
                continue;
            }
            if self.is_stdin() {
                return Ok((!self.rest.is_empty()).then(|| self.take()));
            }
            if !self.go_on()? {
                return Ok(None);
            }
        }
    }

    /// After the end: goes to the beginning of the file itself, of one that has taken its place, or
    /// of one that was emptied. Says whether there may be more now.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let position = file.handle.stream_position()?;
        if position == 0 && file.handle.metadata()?.len() > 0 {
            self.from = Box::new(BufReader::new(file.handle.try_clone()?));
            return Ok(true);
        }
        if file.handle.metadata()?.len() < position {
            file.handle.seek(SeekFrom::Start(0))?;
            self.rest.clear();
            return Ok(true);
        }
        match std::fs::metadata(&self.name) {
            // The file was put aside and not begun again yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
            Ok(there) if (there.dev(), there.ino()) == file.id => Ok(false),
            Ok(_) => {
                self.reopen()?;
                Ok(true)
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let handle = File::open(&self.name)?;
        let metadata = handle.metadata()?;
        self.from = Box::new(BufReader::new(handle.try_clone()?));
        if metadata.is_file() {
            self.file = Some(Followed { id: (metadata.dev(), metadata.ino()), handle });
        }
        Ok(())
    }

    /// Reads on to the end of a line, and says whether it has come.
    fn read_line(&mut self) -> io::Result<bool> {
        loop {
            let mut beyond = Vec::new();
            let room = LINE_BYTES_MAX.saturating_sub(self.rest.len());
            let (into, limit) = match room {
                0 => (&mut beyond, SKIPPED_BYTES),
                room => (&mut self.rest, room),
            };
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            if (&mut self.from).take(limit).read_until(b'\n', into)? == 0 {
                return Ok(false);
            }
            let ended = into.pop_if(|last| *last == b'\n').is_some();
            self.is_cut |= !beyond.is_empty();
            if ended {
                return Ok(true);
            }
        }
    }

    fn take(&mut self) -> Line {
        let bytes = std::mem::take(&mut self.rest);
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        Line { text, is_cut: std::mem::take(&mut self.is_cut) }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::io::Write;

    use super::*;

    fn texts(source: &mut Source) -> Vec<String> {
        std::iter::from_fn(|| source.next().unwrap()).map(|line| line.text).collect()
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn what_was_put_aside_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        append(&numbered(&path, 2), "1\n2\n");
        append(&numbered(&path, 1), "3\n");
        append(&path, "4\n5");
        let mut source = Source::open(&path).unwrap();
        assert_eq!(texts(&mut source), ["1", "2", "3", "4"]);
        append(&path, "5\n");
        assert_eq!(texts(&mut source), ["55"]);
    }

    #[test]
    fn a_file_is_followed_when_it_is_put_aside_or_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        append(&path, "1\n");
        let mut source = Source::open(&path).unwrap();
        assert_eq!(texts(&mut source), ["1"]);
        // The last lines of the old file are not missed.
        append(&path, "2\n");
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        assert_eq!(texts(&mut source), ["2"]);
        append(&path, "3\n4\n");
        assert_eq!(texts(&mut source), ["3", "4"]);
        File::create(&path).unwrap();
        assert_eq!(texts(&mut source), [] as [&str; 0]);
        append(&path, "5\n");
        assert_eq!(texts(&mut source), ["5"]);
    }

    #[test]
    fn a_line_is_bounded_and_any_bytes_are_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let long = vec![b'x'; 3 * LINE_BYTES_MAX];
        std::fs::write(&path, [&long[..], b"\n\xff\xfe\n\nend\n"].concat()).unwrap();
        let mut source = Source::open(&path).unwrap();
        let first = source.next().unwrap().unwrap();
        assert!(first.is_cut && first.text.len() <= LINE_BYTES_MAX, "{}", first.text.len());
        assert_eq!(texts(&mut source), ["\u{fffd}\u{fffd}", "", "end"]);
    }
}
