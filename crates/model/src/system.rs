//! Errors of the operating system in words, with what to do about them.

use std::io::{self, ErrorKind};

/// `error` in words, with the cure where there is a usual one: what stands behind the name of the
/// file that it is about.
///
/// The number that the standard library adds says nothing to who reads the words, and is left out.
#[must_use]
pub fn system_error(error: &io::Error) -> String {
    match cure(error) {
        Some(cure) => format!("{}; {cure}", system_words(error)),
        None => system_words(error),
    }
}

/// `error` in words, for where a cure of its own follows. As [`system_error`] otherwise.
#[must_use]
pub fn system_words(error: &io::Error) -> String {
    // Whoever made an error of its own has chosen its words.
    if error.get_ref().is_some() {
        return error.to_string();
    }
    let known = match error.kind() {
        ErrorKind::NotFound => "there is no such file or directory",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::IsADirectory => "it is a directory",
        ErrorKind::NotADirectory => "something above it is no directory",
        ErrorKind::AlreadyExists => "it is there already",
        ErrorKind::ReadOnlyFilesystem => "its file system is read-only",
        ErrorKind::StorageFull => "no space is left",
        ErrorKind::ConnectionRefused => "connection refused",
        _ => return unnumbered(&error.to_string()),
    };
    known.to_owned()
}

/// What to do about it.
pub(crate) fn cure(error: &io::Error) -> Option<&'static str> {
    if error.get_ref().is_some() {
        return None;
    }
    Some(match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "check the path",
        ErrorKind::PermissionDenied => "give this user access to it, or name another",
        ErrorKind::IsADirectory => "name a file",
        ErrorKind::AlreadyExists => "remove it, or name another",
        ErrorKind::ReadOnlyFilesystem => "name another place",
        ErrorKind::StorageFull => "make room, or name another place",
        _ => return None,
    })
}

/// As the system says it, beginning small and without its number.
fn unnumbered(text: &str) -> String {
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_a_cure_and_no_number() {
        let check = |error: io::Error, expected: &str| assert_eq!(system_error(&error), expected);
        let raw = io::Error::from_raw_os_error;
        check(raw(2), "there is no such file or directory; check the path");
        check(raw(13), "permission denied; give this user access to it, or name another");
        check(raw(24), "too many open files");
        check(ErrorKind::IsADirectory.into(), "it is a directory; name a file");
        check(io::Error::new(ErrorKind::NotFound, "Own words"), "Own words");
    }
}
