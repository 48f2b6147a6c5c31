//! What can be seen on this machine without asking anybody: files and ports.

use std::path::{Path, PathBuf};

use convoke::chain;
use convoke::serve::{Config, StartError, load_policy};
use convoke_model::system_error;
use convoke_policy::Policy;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::report::Report;
use super::system;

/// Reads the configuration.
pub(super) fn configuration(path: &Path, report: &mut Report) -> Option<Config> {
    let check = "configuration";
    match Config::load(path) {
        Ok(config) => {
            report.good(check, format!("describes {}", config.identity.spiffe_id));
            for warning in config.warnings() {
                report.warn(check, warning, None);
            }
            Some(config)
        }
        Err(error) => {
            for problem in &error.problems {
                let numbers = [problem.line, problem.column].into_iter().flatten();
                let place = numbers.fold(path.display().to_string(), |at, n| format!("{at}:{n}"));
                report.wrong(check, format!("{place}: {problem}"), None);
            }
            if error.unlisted > 0 {
                report.wrong(check, format!("and {} more problems", error.unlisted), None);
            }
            report.skip("everything else", "it depends on the configuration");
            None
        }
    }
}

/// Loads the policy, if the embedded engine decides.
pub(super) fn policy(config: &Config, report: &mut Report) -> Option<Policy> {
    let check = "policy";
    if let Some(server) = &config.authorization.opa {
        report.skip(check, format!("{} decides", server.url));
        return None;
    }
    match load_policy(config) {
        Ok(policy) => {
            let what = match &config.authorization.policy_file {
                Some(file) => format!("{} loads", file.display()),
                None => "none is named, so `authorization.default_policy` decides".to_owned(),
            };
            report.good(check, format!("{what}, revision {}", policy.revision().0));
            Some(policy)
        }
        Err(error) => {
            // The others say their cure themselves.
            let is_policy = matches!(error, StartError::Policy(_));
            let cure = "correct it there; `convoke policy check` looks at a policy by itself";
            report.wrong(check, chain(&error), is_policy.then(|| cure.to_owned()));
            None
        }
    }
}

/// Whether the agent can keep files in its data directory.
pub(super) fn data_dir(config: &Config, report: &mut Report) {
    let dir = &config.data_dir;
    match writable(dir) {
        Ok(()) => report.good("data directory", format!("{} can be written", dir.display())),
        Err(why) => report.wrong(
            "data directory",
            format!("{} cannot be written: {why}", dir.display()),
            "give it to the agent's user, or name another with `data_dir`".to_owned(),
        ),
    }
}

/// Whether the agent can append to its audit file. `has_said` that the agent has answered on its
/// metrics listener.
pub(super) fn audit_file(config: &Config, has_said: bool, report: &mut Report) {
    let check = "audit file";
    let path = &config.observability.audit.path;
    let shown = path.display();
    let dir = path.parent().unwrap_or(Path::new("."));
    let cure = "give it to the agent's user, or name another with `observability.audit.path`";
    let allowed = if path.is_dir() {
        Err("it is a directory".to_owned())
    } else if path.exists() {
        may(path, Access::WRITE_OK)
    } else {
        writable(dir)
    };
    if let Err(why) = allowed {
        return report.wrong(check, format!("{shown} cannot be written: {why}"), cure.to_owned());
    }
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    if let Err(why) = lockable(path, &lock) {
        let text = format!("{shown} cannot be written: its lock cannot be taken: {why}");
        let cure = format!(
            "run the agent as the owner of {}, or remove it if no process writes the audit file",
            lock.display()
        );
        return report.wrong(check, text, cure);
    }
    let holder = system::lock_holder(&lock).or_else(|| system::lock_holder(path));
    let Some(holder) = holder else {
        return report.good(check, format!("{shown} can be written"));
    };
    let at = config.server.address();
    let metrics = config.observability.metrics.as_ref().filter(|_| has_said);
    let places = [Some(at), metrics.map(|metrics| metrics.address())];
    let mut own = places.into_iter().flatten().filter_map(|at| {
        system::listener(at.ip(), at.port()).and_then(|listener| listener.process())
    });
    // Port 0 is one that cannot be looked up, so who holds the lock may be the agent itself.
    if at.port() == 0 || own.any(|own| own.pid == holder.pid) {
        report.good(check, format!("{shown} is written by {holder}"));
    } else {
        report.wrong(
            check,
            format!("{shown} is locked by {holder}, which does not serve this agent's port"),
            "stop it, or give each agent a file of its own with `observability.audit.path`"
                .to_owned(),
        );
    }
}

/// Whether the metrics listener has, or can have, its port. `has_said` that the agent has answered
/// there.
pub(super) fn metrics_port(config: &Config, has_said: bool, report: &mut Report) {
    let check = "metrics port";
    let Some(metrics) = &config.observability.metrics else {
        return report.skip(check, "`observability.metrics` is not enabled");
    };
    let (at, mesh) = (metrics.address(), config.server.address());
    if at.port() == 0 {
        return report.good(check, "any free one is taken");
    }
    let cure = "choose another `observability.metrics.port`";
    let Some(found) = system::listener(at.ip(), at.port()) else {
        return report.good(check, format!("{at} is free"));
    };
    let agent = system::listener(mesh.ip(), mesh.port()).and_then(|found| found.process());
    let process = found.process();
    if has_said || agent.is_some() && agent == process {
        report.good(check, format!("{at} is served by the agent"));
    } else if process.is_none() {
        // What another user's process is cannot be seen, and it may well be the agent.
        let cure = format!("if that is not the agent, {cure}");
        report.warn(check, format!("{at} is in use by {}", found.who()), cure);
    } else {
        report.wrong(check, format!("{at} is in use by {}", found.who()), cure.to_owned());
    }
}

/// Whether the lock beside the audit file `path` can be taken. One that is not there is made, or
/// else the audit file is locked itself; what is no file, such as a terminal, has none.
fn lockable(path: &Path, lock: &Path) -> Result<(), String> {
    if path.exists() && !path.is_file() {
        return Ok(());
    }
    match lock.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {}", lock.display(), system_error(&error))),
        Ok(_) if lock.is_dir() => Err(format!("{} is a directory", lock.display())),
        Ok(_) => may(lock, Access::WRITE_OK),
    }
}

/// Whether files can be made in `dir`, which may still have to be made itself.
fn writable(dir: &Path) -> Result<(), String> {
    let dir = std::path::absolute(dir).map_err(|error| error.to_string())?;
    let found = dir.ancestors().find(|above| above.symlink_metadata().is_ok());
    let found = found.map_or_else(|| PathBuf::from("/"), Path::to_owned);
    if !found.is_dir() {
        return Err(format!("{} is no directory", found.display()));
    }
    may(&found, Access::WRITE_OK | Access::EXEC_OK)
}

fn may(path: &Path, access: Access) -> Result<(), String> {
    accessat(CWD, path, access, AtFlags::EACCESS).map_err(|error| {
        let error = std::io::Error::from(error);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("this user may not write to {}", path.display())
            }
            std::io::ErrorKind::ReadOnlyFilesystem => {
                format!("{} is on a file system that is read-only", path.display())
            }
            _ => format!("{}: {}", path.display(), system_error(&error)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_those_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(&dir.path().join("a/b/c")), Ok(()));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = writable(&file.join("a")).unwrap_err();
        assert_eq!(error, format!("{} is no directory", file.display()));
        assert!(!dir.path().join("a").exists());
    }
}
