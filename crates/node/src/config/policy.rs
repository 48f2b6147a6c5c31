//! Finds and reads the policy file that a configuration names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use convoke_model::system_error;

use super::error::Problem;
use super::text::{nearest, quote};
use super::{Config, ConfigError, read_text};

/// Most names of a directory that are looked at for the one that was meant.
const BESIDE_MAX: usize = 1000;

/// A policy as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// The file that was read.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads the policy of `config`, first from the working directory, then from the file's own.
pub(super) fn load(config: &Config) -> Result<Option<PolicySource>, ConfigError> {
    let Some(file) = &config.authorization.policy_file else { return Ok(None) };
    let candidates = candidates(config, file);
    for path in &candidates {
        match read_text(path) {
            Ok(text) => return Ok(Some(PolicySource { path: path.clone(), text })),
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => return Err(unreadable(config, path, &why)),
        }
    }
    let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let message = format!("there is no policy at {}", looked.join(" or "));
    Err(refuse(config, message, Some(&cure(&candidates))))
}

/// Reads the policy of `config` from `place`, where it was found before, and from nowhere else.
pub(super) fn load_again(config: &Config, place: &Path) -> Result<PolicySource, ConfigError> {
    match read_text(place) {
        Ok(text) => Ok(PolicySource { path: place.to_owned(), text }),
        Err(why) if why.kind() == ErrorKind::NotFound => {
            let message = format!("there is no policy at {} any more", place.display());
            let cure = "put it back, or start again to take one from elsewhere";
            Err(refuse(config, message, Some(cure)))
        }
        Err(why) => Err(unreadable(config, place, &why)),
    }
}

fn unreadable(config: &Config, path: &Path, why: &std::io::Error) -> ConfigError {
    let why = system_error(why);
    refuse(config, format!("the policy {} cannot be read: {why}", path.display()), None)
}

/// Where `file` may be, which is relative to `policy_path`.
fn candidates(config: &Config, file: &Path) -> Vec<PathBuf> {
    let from_working_directory = config.authorization.policy_path.join(file);
    let own = config.file.parent().filter(|own| !own.as_os_str().is_empty());
    let beside = own
        .filter(|_| from_working_directory.is_relative())
        .map(|own| own.join(&from_working_directory))
        // Where the file is named from its own directory, both are the same place.
        .filter(|beside| *beside != from_working_directory);
    std::iter::once(from_working_directory).chain(beside).collect()
}

/// What to do when none of `candidates` is there: what stands beside them says what was meant.
fn cure(candidates: &[PathBuf]) -> String {
    let mut directories = candidates.iter().filter_map(|path| path.parent());
    let has_directory = directories.clone().any(Path::is_dir);
    let near = directories.find_map(|directory| {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let names = std::fs::read_dir(directory).ok()?.take(BESIDE_MAX).filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok().filter(|name| name.ends_with(".rego"))
        });
        let names: Vec<String> = names.collect();
        let wanted = candidates.first()?.file_name()?.to_str()?;
        nearest(wanted, names.iter().map(String::as_str)).map(quote)
    });
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if has_directory => {
            "write it there, or correct `authorization.policy_file`".to_owned()
        }
        None => "there is no such directory either: correct `authorization.policy_path`, which \
                 starts from the working directory or from the configuration's own"
            .to_owned(),
    }
}

fn refuse(config: &Config, message: String, cure: Option<&str>) -> ConfigError {
    let mut problem = Problem::of_key("authorization.policy_file", message, cure);
    (problem.line, problem.column) = config.policy_at;
    ConfigError::new(&config.file.display().to_string(), vec![problem])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(directory: &Path, authorization: &str) -> Config {
        let text = format!(
            "identity:\n  spiffe_id: spiffe://example.org/worker\ndata_dir: /d\nauthorization:\n{authorization}"
        );
        let mut config = Config::parse(&text, "worker.yaml").unwrap();
        config.file = directory.join("worker.yaml");
        config
    }

    #[test]
    fn the_configurations_own_directory_is_the_second_place() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("policies")).unwrap();
        let file = directory.path().join("policies/p.rego");
        fs::write(&file, "package a\n").unwrap();
        let config = config(directory.path(), "  policy_path: ./policies\n  policy_file: p.rego\n");
        let source = config.policy().unwrap().unwrap();
        assert_eq!(source.text, "package a\n");
        assert_eq!(source.path, directory.path().join("./policies/p.rego"));
    }

    #[test]
    fn without_a_file_there_is_no_policy() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(config(directory.path(), "  engine: opa\n").policy(), Ok(None));
    }

    #[test]
    fn what_cannot_be_loaded_is_an_error_that_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let check = |file: &str, expected: &[&str]| {
            let yaml = format!("  policy_path: pol\n  policy_file: {file}\n");
            let error = config(directory.path(), &yaml).policy().unwrap_err().to_string();
            for piece in expected {
                assert!(error.contains(piece), "{error}");
            }
        };
        let own = directory.path().join("pol");
        fs::create_dir(&own).unwrap();
        let missing = own.join("absent.rego").display().to_string();
        let written = "write it there, or correct `authorization.policy_file`";
        check(
            "absent.rego",
            &["worker.yaml:6:16: there is no policy at pol/absent.rego or ", &missing, written],
        );
        fs::write(own.join("worker_policy.rego"), "package a").unwrap();
        check("worker_polcy.rego", &["did you mean `worker_policy.rego`?"]);
        fs::write(own.join("long.rego"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
        check("long.rego", &["cannot be read: longer than 1048576 bytes"]);
        fs::write(own.join("bytes.rego"), [0xff, 0xfe]).unwrap();
        check("bytes.rego", &["bytes.rego cannot be read: ", "UTF-8"]);
        fs::create_dir(own.join("directory.rego")).unwrap();
        check("directory.rego", &["directory.rego cannot be read: "]);
        let pipe = own.join("pipe.rego");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        check("pipe.rego", &["pipe.rego cannot be read: it is a pipe and not a regular file"]);
    }

    #[test]
    fn a_configuration_that_is_a_pipe_is_read_only_where_the_shell_has_opened_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("worker.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = Config::load(&pipe).unwrap_err().to_string();
        assert!(error.contains("cannot be read: it is a pipe and not a regular file"), "{error}");
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"identity: [").unwrap();
        drop(writer);
        let handed = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let error = Config::load(Path::new(&handed)).unwrap_err().to_string();
        assert!(error.contains(":1:") && !error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &str, expected: &str| {
            let yaml = format!("  policy_path: {path}\n  policy_file: p.rego\n");
            let error = config(directory.path(), &yaml).policy().unwrap_err().to_string();
            assert!(error.contains("there is no such directory either"), "{error}");
            assert_eq!(error.matches(expected).count(), 1, "{error}");
        };
        check("nowhere", "nowhere/p.rego or ");
        // An absolute path is one place, and where the agent is started does not matter.
        check("/nowhere/at/all", "there is no policy at /nowhere/at/all/p.rego; ");
    }
}
