//! The files of the project, read once and handed to every check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Every text file of the project, by its path from the workspace with `/` between the parts.
///
/// What `.gitignore` names is not the project's, and neither are links nor files that are
/// not UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
    /// Paths that exist and hold no text: pictures and the like.
    others: Vec<String>,
}

impl Tree {
    /// Reads the project below `root`.
    ///
    /// It walks the directories instead of asking git, so that an unpacked archive is checked
    /// like a clone.
    ///
    /// # Errors
    ///
    /// When a file or directory cannot be read, or `.gitignore` uses a pattern that
    /// [`Ignored::parse`] does not know.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let ignored = match fs::read_to_string(root.join(".gitignore")) {
            Ok(text) => Ignored::parse(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ignored::default(),
            Err(error) => return Err(error).context("cannot read .gitignore"),
        };
        let mut tree = Self::default();
        tree.walk(root, "", &ignored)?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path, prefix: &str, ignored: &Ignored) -> Result<()> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot list `{}`", directory.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list `{}`", directory.display()))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                bail!("`{}` has a name that is not UTF-8", entry.path().display());
            };
            let path = format!("{prefix}{name}");
            if ignored.covers(&path, name) {
                continue;
            }
            let kind = entry.file_type().with_context(|| format!("cannot look at `{path}`"))?;
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"), ignored)?;
            } else if kind.is_file() {
                let bytes =
                    fs::read(entry.path()).with_context(|| format!("cannot read `{path}`"))?;
                match String::from_utf8(bytes) {
                    Ok(text) => drop(self.files.insert(path, text)),
                    Err(_) => self.others.push(path),
                }
            }
        }
        Ok(())
    }

    /// All text files, ordered by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text files whose path ends like this.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(path, _)| path.ends_with(end))
    }

    /// The text at a path, if there is any.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether this is a file or a directory of the project.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let inside = |known: &String| {
            known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.is_empty() || self.files.keys().any(inside) || self.others.iter().any(inside)
    }

    /// The directories of the crates below `crates/`, without that prefix.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.files().filter_map(|(path, _)| {
            let directory = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!directory.contains('/')).then_some(directory)
        })
    }

    /// A tree made by a test.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { files, others: Vec::new() }
    }
}

/// What `.gitignore` leaves out, as far as this project needs it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ignored {
    /// From the workspace: `/target/`.
    paths: Vec<String>,
    /// Anywhere: `target/`.
    names: Vec<String>,
}

impl Ignored {
    /// Reads lines of the forms `/path/from/here/` and `name/`, with or without the last slash.
    fn parse(text: &str) -> Result<Self> {
        let mut ignored = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.contains(['*', '?', '[', '!', '\\']) {
                bail!(
                    ".gitignore has the pattern `{line}`, and tidy knows `/path` and `name` alone"
                );
            }
            let path = line.trim_end_matches('/');
            match path.strip_prefix('/') {
                Some(path) => ignored.paths.push(path.to_owned()),
                None if path.contains('/') => ignored.paths.push(path.to_owned()),
                None => ignored.names.push(path.to_owned()),
            }
        }
        Ok(ignored)
    }

    fn covers(&self, path: &str, name: &str) -> bool {
        name == ".git"
            || self.paths.iter().any(|ignored| ignored == path)
            || self.names.iter().any(|ignored| ignored == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_ignored(gitignore: &str, path: &str, expected: bool) {
        let ignored = Ignored::parse(gitignore).unwrap();
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(ignored.covers(path, name), expected, "{path} by {gitignore}");
    }

    #[test]
    fn ignored_paths() {
        check_ignored("/target/\n", "target", true);
        check_ignored("/target/\n", "fuzz/target", false);
        check_ignored("# built\n\ntarget/\n", "fuzz/target", true);
        check_ignored("docs/out\n", "docs/out", true);
        check_ignored("", "a/.git", true);
        check_ignored("", ".gitignore", false);
        assert!(Ignored::parse("*.log").is_err());
    }

    #[test]
    fn files_and_directories_exist() {
        let tree = Tree::of(&[("docs/a.md", ""), ("crates/model/Cargo.toml", "")]);
        assert!(tree.exists("docs/a.md"));
        assert!(tree.exists("docs"));
        assert!(!tree.exists("doc"));
        assert_eq!(tree.crates().collect::<Vec<_>>(), ["model"]);
    }

    #[test]
    fn a_directory_is_read_without_what_is_ignored() {
        let root = std::env::temp_dir().join(format!("convoke-tidy-{}", std::process::id()));
        fs::create_dir_all(root.join("src")).unwrap();
        fs::create_dir_all(root.join("target")).unwrap();
        fs::write(root.join(".gitignore"), "/target/\n").unwrap();
        fs::write(root.join("src/lib.rs"), "text").unwrap();
        fs::write(root.join("src/picture"), [0xff, 0xfe]).unwrap();
        fs::write(root.join("target/built"), "text").unwrap();
        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).unwrap();
        let tree = tree.unwrap();
        assert_eq!(tree.text("src/lib.rs"), Some("text"));
        assert!(tree.exists("src/picture") && !tree.exists("target/built"));
    }
}
