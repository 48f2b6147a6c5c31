//! A network and a `/tmp` of a test's own, for files whose ports and paths are fixed.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::process::run;
use crate::world::BINARY;

/// Set in the copy of this program that runs inside.
const INSIDE: &str = "CONVOKE_TEST_NAMESPACE";

/// As root, and as a user who may make user namespaces.
const WAYS_IN: [&[&str]; 2] = [&["--net", "--mount"], &["--map-root-user", "--net", "--mount"]];

/// Brings up loopback and covers `/tmp`, in which only the directories stay that the test needs:
/// the arguments between the fresh directory and `--`.
const ENTER: &str = r#"
set -eu
ip link set lo up
fresh=$1
shift
mount -t tmpfs -o mode=1777 tmpfs "$fresh"
while [ "$1" != -- ]; do
  mkdir "$fresh/$1"
  mount --rbind "/tmp/$1" "$fresh/$1"
  shift
done
shift
mount --move "$fresh" /tmp
exec "$@"
"#;

/// Does nothing but use what [`ENTER`] needs of the machine: its programs, and leave to use them on
/// the directory `$1`.
const PROBE: &str = r#"ip link set lo up && mount -t tmpfs tmpfs "$1""#;

/// Runs `body` in a namespace: there by itself, and here by running `test` once more inside.
/// `needs` are paths that it reads. Skipped where the machine does not permit a namespace, and only
/// there: whatever goes wrong in one that it permits fails the test.
pub(crate) fn alone(test: &str, needs: &[&Path], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    let way = match way_in(fresh.path()) {
        Ok(way) => way,
        Err(why) => {
            println!("skipped: {test}: {why}");
            return;
        }
    };
    let program = std::env::current_exe().unwrap();
    let mut paths = vec![program.as_path(), Path::new(BINARY)];
    paths.extend(needs);
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", ENTER, "enter"]).arg(fresh.path());
    command.args(kept(&paths)).arg("--").arg(&program).args(["--exact", test, "--nocapture"]);
    command.env(INSIDE, "1").env_remove("TMPDIR");
    let done = run(&mut command, b"");
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("1 passed"), "{test} is not the name of one test: {done:?}");
}

/// The first of [`WAYS_IN`] that the machine permits, or why it permits none.
fn way_in(fresh: &Path) -> Result<&'static [&'static str], String> {
    let mut why = String::new();
    for way in WAYS_IN {
        let probe = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", PROBE, "probe"])
            .arg(fresh)
            .output();
        why = match probe {
            Ok(tried) if tried.status.success() => return Ok(way),
            Ok(tried) => String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; "),
            Err(error) => format!("unshare: {error}"),
        };
    }
    Err(why)
}

/// The directories right below `/tmp` that lead to any of `paths`, each once.
fn kept(paths: &[&Path]) -> BTreeSet<String> {
    paths.iter().copied().filter_map(below_tmp).collect()
}

/// The directory right below `/tmp` that leads to `path`, if one does.
fn below_tmp(path: &Path) -> Option<String> {
    let path: PathBuf = path.canonicalize().unwrap();
    let mut parts = path.strip_prefix("/tmp").ok()?.components();
    match parts.next() {
        Some(Component::Normal(name)) => Some(name.to_str().unwrap().to_owned()),
        _ => None,
    }
}

#[test]
fn what_is_kept_of_tmp_is_kept_once() {
    let dir = tempfile::Builder::new().prefix("kept for a test-").tempdir_in("/tmp").unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(kept(&[dir.path(), &file, Path::new("/usr")]), BTreeSet::from([name]));
}

#[test]
fn a_directory_with_a_blank_in_its_name_stays_below_tmp() {
    let dir = tempfile::Builder::new().prefix("kept for a test-").tempdir_in("/tmp").unwrap();
    alone("namespace::a_directory_with_a_blank_in_its_name_stays_below_tmp", &[dir.path()], || {
        // The outer run's directory is there, beside this run's own and what the build needs.
        let names = std::fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name());
        let kept = names.filter(|name| name.to_string_lossy().starts_with("kept for a test-"));
        assert_eq!(kept.count(), 2);
    });
}
