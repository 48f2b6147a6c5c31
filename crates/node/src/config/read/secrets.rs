//! Secrets: from a file or an environment variable, never from the configuration itself.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use convoke_identity::regular_file;
use convoke_model::{Secret, system_error, system_words};

use super::super::Environment;
use super::super::reader::Section;
use super::super::text::plain_text;
use super::forms::is_variable_name;

/// Longest secret, in bytes. Tokens have some thousand.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The bits of a file's mode by which users other than its owner and group get at it.
const MODE_OTHERS: u32 = 0o007;

/// The secret that `file_key` or `env_key` of `section` says where to find. No message repeats it,
/// nor a name of nothing: that may be the secret itself, in the wrong place.
///
/// The outer `None` means that there is a problem, which has been reported.
pub(super) fn read(
    section: &Section<'_>,
    file_key: &'static str,
    env_key: &'static str,
    env: &Environment,
) -> Option<Option<Secret>> {
    let has = (section.has(file_key), section.has(env_key));
    let file = section.text(file_key);
    let variable = section.parsed(env_key, |text| Ok::<_, String>(text.to_owned()));
    if has == (true, true) {
        let message = "the secret comes from a file and from a variable";
        section.problem(env_key, message, Some("leave one of the two out"));
        return None;
    }
    let (key, found) = match (has, file, variable) {
        ((false, false), ..) => return Some(None),
        (_, Some(file), _) => (file_key, from_file(file_key, Path::new(&file))),
        (_, _, Some(variable)) => (env_key, from_variable(env_key, &variable, env)),
        _ => return None,
    };
    let found = found.and_then(|text| {
        let text = text.trim_end_matches(['\r', '\n']);
        plain_text(text).map(Secret::new).map_err(|why| format!("the secret is unusable: {why}"))
    });
    match found {
        Ok(secret) => Some(Some(secret)),
        Err(why) => {
            section.problem(key, &why, None);
            None
        }
    }
}

fn from_variable(key: &str, name: &str, env: &Environment) -> Result<String, String> {
    if !is_variable_name(name) {
        return Err("what is given as the name of an environment variable is none; name the \
                    variable that holds the secret, not the secret"
            .to_owned());
    }
    let value = env.variables.get(name).ok_or_else(|| {
        format!(
            "`{key}` names an environment variable that is not set; set it, and name the variable \
             that holds the secret, not the secret"
        )
    })?;
    let value = value.to_str().ok_or_else(|| format!("the value of {name} is not UTF-8"))?;
    Ok(value.to_owned())
}

fn from_file(key: &str, path: &Path) -> Result<String, String> {
    let fail = |why: &dyn std::fmt::Display| {
        format!("the secret in {} cannot be read: {why}", path.display())
    };
    let file = regular_file::open(path).map_err(|why| match why.kind() {
        // Something is there, so what is given is a path and not the secret.
        ErrorKind::IsADirectory | ErrorKind::InvalidInput => fail(&system_error(&why)),
        _ => {
            let why = system_words(&why);
            format!(
                "`{key}` names a file that cannot be opened: {why}; name the file that holds the \
                 secret, not the secret"
            )
        }
    })?;
    // What was opened is what is looked at, so that nothing can be put in its place in between.
    check(&file.metadata().map_err(|why| fail(&system_error(&why)))?).map_err(|why| fail(&why))?;
    regular_file::text_of(file, SECRET_BYTES_MAX).map_err(|why| fail(&system_error(&why)))
}

fn check(file: &Metadata) -> Result<(), String> {
    let mode = file.permissions().mode() & 0o777;
    if mode & MODE_OTHERS != 0 {
        Err(format!("its mode {mode:04o} lets every user at it; use `chmod o= FILE`"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_others_cannot_get_at_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let check = |mode: u32, expected: Result<&str, &str>| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match (from_file("token_file", &path), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => {
                    assert!(found.ends_with(expected), "{found}");
                    assert!(!found.contains("s3cret"), "{found}");
                }
                (found, _) => panic!("{mode:o}: {found:?}"),
            }
        };
        check(0o600, Ok("s3cret\n"));
        check(0o640, Ok("s3cret\n"));
        check(0o644, Err("its mode 0644 lets every user at it; use `chmod o= FILE`"));
        check(0o602, Err("its mode 0602 lets every user at it; use `chmod o= FILE`"));
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX + 1)).unwrap();
        check(0o600, Err("longer than 65536 bytes"));
        // Opening a pipe without a writer would wait for one.
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        check(0o600, Err("it is a pipe and not a regular file; name a regular file"));
    }
}
