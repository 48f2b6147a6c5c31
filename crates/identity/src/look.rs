//! Whether files have changed, by what they look like from outside.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long after its last change a file is read again although it looks the same. File systems
/// keep the time of a change in ticks, and two changes may fall into one.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What files look like from outside, in the order in which they were looked at. A file that is not
/// there is a look too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look(Vec<Option<Stamp>>);

impl Look {
    /// What the files at `paths` look like now: a `stat` of each.
    pub(crate) fn at<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        Self(paths.map(|path| std::fs::metadata(path).ok().map(Stamp::of)).collect())
    }

    /// Whether a change that this look does not show can no longer have happened before it.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        self.0.iter().flatten().all(|stamp| {
            now.duration_since(stamp.modified).is_ok_and(|since| since >= SETTLED_AFTER)
        })
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: SystemTime,
    /// Also tells of a change of mode or owner.
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: Metadata) -> Self {
        Self {
            inode: file.ino(),
            bytes: file.len(),
            modified: file.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}
