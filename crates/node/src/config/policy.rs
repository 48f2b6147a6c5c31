//! Finds and reads the policy file that a configuration names.

use std::io::ErrorKind;
use std::path::PathBuf;

use super::error::Problem;
use super::{Config, ConfigError, read_text};

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
    let from_working_directory = config.authorization.policy_path.join(file);
    let mut candidates = vec![from_working_directory.clone()];
    if let Some(directory) = config.file.parent()
        && from_working_directory.is_relative()
        && !directory.as_os_str().is_empty()
    {
        candidates.push(directory.join(&from_working_directory));
    }
    for path in &candidates {
        match read_text(path) {
            Ok(text) => return Ok(Some(PolicySource { path: path.clone(), text })),
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            Err(why) => {
                return Err(refuse(
                    config,
                    format!("the policy {} cannot be read: {why}", path.display()),
                ));
            }
        }
    }
    let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    Err(refuse(config, format!("the policy is not found; looked for {}", looked.join(" and "))))
}

fn refuse(config: &Config, message: String) -> ConfigError {
    let problem = Problem::of_key(
        "authorization.policy_file",
        message,
        Some("run from the directory that `authorization.policy_path` starts from"),
    );
    ConfigError::new(&config.file.display().to_string(), vec![problem])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

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
        check("absent.rego", &["looked for pol/absent.rego and ", &missing]);
        fs::write(own.join("long.rego"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
        check("long.rego", &["cannot be read: longer than 1048576 bytes"]);
        fs::write(own.join("bytes.rego"), [0xff, 0xfe]).unwrap();
        check("bytes.rego", &["bytes.rego cannot be read: ", "UTF-8"]);
        fs::create_dir(own.join("directory.rego")).unwrap();
        check("directory.rego", &["directory.rego cannot be read: "]);
    }
}
