//! Files that somebody names, and that may turn out to be something else.
//!
//! Opening a pipe waits for its other end, a terminal may become the one of this process, and a
//! device acts when it is opened. So what lies at a path is looked at before it is opened, it is
//! opened without waiting, and what was opened is looked at again.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Error, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens the regular file at `path` for reading, following links. It never waits for a writer.
///
/// # Errors
///
/// What the system says, or [`ErrorKind::InvalidInput`] with what lies there, if that is no regular
/// file.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true))
}

/// As [`open`], as `options` say, which may make the file. Their custom flags are replaced.
///
/// # Errors
///
/// As [`open`].
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(found) => check(found.file_type())?,
        // With these options it may be made.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    // Another may have been put in its place meanwhile.
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// The text of the regular file at `path`, of at most `bytes_max` bytes.
///
/// # Errors
///
/// As [`open`]; [`ErrorKind::FileTooLarge`] if it is longer; [`ErrorKind::InvalidData`] if it is
/// not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    text_of(open(path)?, bytes_max)
}

/// What `file` still holds, of at most `bytes_max` bytes, as text.
///
/// # Errors
///
/// As [`read_text`].
pub fn text_of(file: File, bytes_max: usize) -> io::Result<String> {
    let bytes = bytes_of(file, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// What `file` still holds, of at most `bytes_max` bytes.
///
/// # Errors
///
/// [`ErrorKind::FileTooLarge`] if there is more, and what the system says.
pub fn bytes_of(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn check(found: FileType) -> io::Result<()> {
    let kind = match found {
        found if found.is_file() => return Ok(()),
        // In the system's own words, which every reader of errors knows.
        found if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        found if found.is_fifo() => "a pipe",
        found if found.is_socket() => "a socket",
        found if found.is_char_device() || found.is_block_device() => "a device",
        _ => "something else",
    };
    let why = format!("it is {kind} and not a regular file; name a regular file");
    Err(Error::new(ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn check(path: &Path, expected: Result<&str, &str>) {
        match (read_text(path, 4), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(part)) => {
                let found = convoke_model::system_error(&error);
                assert!(found.contains(part), "{path:?}: {found}");
            }
            (found, expected) => panic!("{path:?}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        check(&path("file"), Ok("text"));
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        check(&path("link"), Ok("text"));
        // A letter on the boundary does not hide that it is too long.
        std::fs::write(path("long"), "textä").unwrap();
        check(&path("long"), Err("longer than 4 bytes"));
        std::fs::write(path("bytes"), [0xff]).unwrap();
        check(&path("bytes"), Err("it is not UTF-8"));
        check(&path("none"), Err("there is no such file"));
        check(dir.path(), Err("it is a directory"));
        // Without a writer: who opens it to read waits for ever.
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        check(&path("pipe"), Err("it is a pipe and not a regular file"));
        std::os::unix::fs::symlink("pipe", path("to pipe")).unwrap();
        check(&path("to pipe"), Err("it is a pipe and not a regular file"));
        let _listener = UnixListener::bind(path("socket")).unwrap();
        check(&path("socket"), Err("it is a socket and not a regular file"));
        check(Path::new("/dev/zero"), Err("it is a device and not a regular file"));
        // Who opens it to write would wait as well.
        let error = open_with(&path("pipe"), OpenOptions::new().write(true).create(true));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
