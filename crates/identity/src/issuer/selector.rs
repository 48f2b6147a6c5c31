//! What a registration entry says of the processes that it means.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Longest path in a selector, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// One thing that the kernel knows of a process; written as SPIRE writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// `unix:uid:1000`: it connected as this user.
    Uid(u32),
    /// `unix:gid:1000`: it connected with this primary group.
    Gid(u32),
    /// `unix:path:/usr/bin/agent`: it runs this program. The path is the program's own, as the
    /// kernel names it, not that of a link to it.
    Path(PathBuf),
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Of a kind that there is not.
    #[error("selector `{0}` is of no known kind; write unix:uid:N, unix:gid:N or unix:path:/PATH")]
    Kind(String),
    /// A user or a group that is not a number.
    #[error("selector `{0}` does not name a number; `id` prints those of users and groups")]
    Number(String),
    /// A path that no program can have, or that cannot be shown.
    #[error(
        "selector `{0}` does not name the absolute path of a program, without `.`, `..` and \
         control characters"
    )]
    Path(String),
    /// A longer path than is kept.
    #[error("a selector's path is longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    /// The path is that of a link, so no process ever has it.
    #[error("`{link}` is a link, and the kernel names the program `{program}`; write that instead")]
    Link {
        /// What was written.
        link: PathBuf,
        /// Where it leads.
        program: PathBuf,
    },
}

impl Selector {
    /// Refuses the path of a link, which would never hold. A program that is not there yet is
    /// left to come.
    ///
    /// # Errors
    ///
    /// [`SelectorError::Link`] with the path that the kernel will name.
    pub fn check_on_this_machine(&self) -> Result<(), SelectorError> {
        let Self::Path(link) = self else { return Ok(()) };
        match std::fs::canonicalize(link) {
            Ok(program) if program != *link => {
                Err(SelectorError::Link { link: link.clone(), program })
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let shown = || text.chars().take(80).flat_map(char::escape_debug).collect::<String>();
        let number = |digits: &str| {
            // `+7` and `007` are numbers to Rust, but not the one spelling of this selector.
            digits
                .parse::<u32>()
                .ok()
                .filter(|number| number.to_string() == digits)
                .ok_or_else(|| SelectorError::Number(shown()))
        };
        if let Some(digits) = text.strip_prefix("unix:uid:") {
            return number(digits).map(Self::Uid);
        }
        if let Some(digits) = text.strip_prefix("unix:gid:") {
            return number(digits).map(Self::Gid);
        }
        let path = text.strip_prefix("unix:path:").ok_or_else(|| SelectorError::Kind(shown()))?;
        if path.len() > PATH_BYTES_MAX {
            return Err(SelectorError::PathTooLong);
        }
        if !is_plain(path) {
            return Err(SelectorError::Path(shown()));
        }
        Ok(Self::Path(path.into()))
    }
}

/// Whether a path is absolute and has one spelling.
fn is_plain(path: &str) -> bool {
    let rebuilt: PathBuf = Path::new(path)
        .components()
        .filter(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        .collect();
    path.starts_with('/')
        && path != "/"
        && rebuilt.as_os_str() == path
        && !path.contains(char::is_control)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "unix:uid:{uid}"),
            Self::Gid(gid) => write!(f, "unix:gid:{gid}"),
            Self::Path(path) => write!(f, "unix:path:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Selector>) {
        let found = text.parse::<Selector>();
        if expected.is_some() {
            assert_eq!(found.as_ref().map(ToString::to_string), Ok(text.to_owned()));
        }
        assert_eq!(found.ok(), expected, "{text}");
    }

    #[test]
    fn a_selector_has_one_spelling() {
        check("unix:uid:0", Some(Selector::Uid(0)));
        check("unix:gid:4294967295", Some(Selector::Gid(u32::MAX)));
        check("unix:path:/usr/bin/a b:c", Some(Selector::Path("/usr/bin/a b:c".into())));
        for wrong in [
            "",
            "unix",
            "unix:",
            "uid:1",
            "unix:uid:",
            "unix:uid:-1",
            "unix:uid:+1",
            "unix:uid:01",
            "unix:uid: 1",
            "unix:uid:root",
            "unix:uid:4294967296",
            "unix:gid:1:2",
            "Unix:uid:1",
            "unix:path:",
            "unix:path:/",
            "unix:path:a",
            "unix:path:./a",
            "unix:path:/a/../b",
            "unix:path:/a/./b",
            "unix:path://a",
            "unix:path:/a//b",
            "unix:path:/a/",
            "unix:path:/a\0b",
            "unix:path:/a\n\u{1b}[31m",
            "k8s:pod:x",
        ] {
            check(wrong, None);
        }
        check(&format!("unix:path:/{}", "a".repeat(PATH_BYTES_MAX)), None);
    }

    #[test]
    fn the_path_of_a_link_never_holds() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (program, link) = (dir.join("program"), dir.join("link"));
        std::fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let of = |path: &Path| Selector::Path(path.to_owned()).check_on_this_machine();
        assert_eq!(of(&program), Ok(()));
        assert_eq!(of(&dir.join("later")), Ok(()));
        assert_eq!(of(&link), Err(SelectorError::Link { link: link.clone(), program }));
    }
}
