//! A network and a `/tmp` of a test's own, for files whose ports and paths are fixed.

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::process::run;
use crate::world::BINARY;

/// Set in the copy of this program that runs inside.
const INSIDE: &str = "CONVOKE_TEST_NAMESPACE";

/// As root, and as a user who may make user namespaces.
const WAYS_IN: [&[&str]; 2] = [&["--net", "--mount"], &["--map-root-user", "--net", "--mount"]];

/// Brings up loopback and covers `/tmp`, in which only the directories stay that the test needs.
const ENTER: &str = r#"
set -eu
ip link set lo up
fresh=$1
kept=$2
shift 2
mount -t tmpfs -o mode=1777 tmpfs "$fresh"
for name in $kept; do
  mkdir "$fresh/$name"
  mount --rbind "/tmp/$name" "$fresh/$name"
done
mount --move "$fresh" /tmp
exec "$@"
"#;

/// Runs `body` in a namespace: there by itself, and here by running `test` once more inside.
/// `needs` are paths that it reads. Skipped where the kernel does not permit it.
pub(crate) fn alone(test: &str, needs: &[&Path], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    let program = std::env::current_exe().unwrap();
    let mut paths = vec![program.as_path(), Path::new(BINARY)];
    paths.extend(needs);
    let kept: Vec<_> = paths.into_iter().filter_map(below_tmp).collect();
    let kept = kept.join(" ");
    let fresh = tempfile::tempdir().unwrap();
    let enter = |way: &[&str], inside: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(way).args(["sh", "-c", ENTER, "enter"]).arg(fresh.path()).arg(&kept);
        command.args(inside).env(INSIDE, "1").env_remove("TMPDIR");
        command
    };

    let mut why = String::from("there is no `unshare`");
    let permitted = WAYS_IN.into_iter().find(|way| {
        let Ok(tried) = enter(way, &["true"]).output() else { return false };
        why = String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ");
        tried.status.success()
    });
    let Some(way) = permitted else {
        println!("skipped: {test}: {why}");
        return;
    };
    let program = program.to_str().unwrap();
    let done = run(&mut enter(way, &[program, "--exact", test, "--nocapture"]), b"");
    assert_eq!(done.code, Some(0), "{}\n{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("1 passed"), "{test} is not the name of one test: {done:?}");
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
