//! The command line of an agent's own program: the words of `convoke serve`, without the agent.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the command line wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To read what there is to want.
    Help,
    /// To know whether the agent could serve.
    Check { config: PathBuf, json: bool },
    /// The agent.
    Serve { config: PathBuf, dev: Option<SocketAddr> },
}

/// Why a command line is none of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongArgument {
    #[error("unknown argument `{0}`")]
    Unknown(String),
    #[error("`--dev` needs an address and a port, such as 127.0.0.1:8080")]
    NoAddress,
    #[error("`{0}` is no address with a port; write for example 127.0.0.1:8080")]
    Address(String),
    #[error("`{0}` is there twice")]
    Twice(&'static str),
    #[error("`--json` is the form of a report, so it goes with `--check`")]
    NothingToReport,
}

/// What `--help` prints for the program of this name.
pub(crate) struct Help<'a>(pub(crate) &'a str);

/// Reads the arguments after the program's name.
pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Wish, WrongArgument> {
    let mut arguments = arguments.into_iter();
    let (mut config, mut dev, mut check, mut json) = (None, None, false, false);
    let mut only_names = false;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let name = if only_names { "" } else { text.as_str() };
        match name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value))) {
            ("--", None) => only_names = true,
            ("--help" | "-h", None) => return Ok(Wish::Help),
            ("--check", None) => check = true,
            ("--json", None) => json = true,
            ("--dev", _) if dev.is_some() => return Err(WrongArgument::Twice("--dev")),
            ("--dev", value) => {
                let value = value.map(str::to_owned);
                let next = || arguments.next().map(|next| next.to_string_lossy().into_owned());
                let value = value.or_else(next).ok_or(WrongArgument::NoAddress)?;
                dev = Some(value.parse().map_err(|_| WrongArgument::Address(value))?);
            }
            _ if name.starts_with('-') && name != "-" => return Err(WrongArgument::Unknown(text)),
            _ if config.is_some() => return Err(WrongArgument::Unknown(text)),
            _ => config = Some(PathBuf::from(argument)),
        }
    }
    let config = config.unwrap_or_else(|| PathBuf::from("config.yaml"));
    match (check, json) {
        (true, json) => Ok(Wish::Check { config, json }),
        (false, true) => Err(WrongArgument::NothingToReport),
        (false, false) => Ok(Wish::Serve { config, dev }),
    }
}

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\
Serve an agent

Usage: {} [OPTIONS] [CONFIG]

Arguments:
  [CONFIG]
          The agent's configuration
          [default: config.yaml]

Options:
      --dev <ADDR:PORT>
          Also answer plaintext HTTP on this loopback address; callers are anonymous

      --check
          Check the configuration, the policy and the agent, and end

      --json
          Report what --check finds as JSON

  -h, --help
          Print help

Exit codes:
  0 success   1 failure   2 wrong command line or configuration   10 no identity",
            self.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: Result<Wish, &str>) {
        let found = read(arguments.iter().map(OsString::from));
        assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn arguments_mean_what_they_mean_to_serve() {
        let serve = |config: &str, dev: Option<&str>| {
            Ok(Wish::Serve { config: config.into(), dev: dev.map(|dev| dev.parse().unwrap()) })
        };
        check(&[], serve("config.yaml", None));
        check(&["a.yaml"], serve("a.yaml", None));
        check(&["--dev", "127.0.0.1:80", "a.yaml"], serve("a.yaml", Some("127.0.0.1:80")));
        check(&["a.yaml", "--dev=[::1]:80"], serve("a.yaml", Some("[::1]:80")));
        check(&["--", "--check"], serve("--check", None));
        let wish = |config: &str, json| Ok(Wish::Check { config: config.into(), json });
        check(&["--check"], wish("config.yaml", false));
        check(&["a.yaml", "--check"], wish("a.yaml", false));
        check(&["--json", "a.yaml", "--check"], wish("a.yaml", true));
        check(&["a.yaml", "-h"], Ok(Wish::Help));
        check(&["--help", "--wrong"], Ok(Wish::Help));
    }

    #[test]
    fn what_means_nothing_is_named() {
        check(&["--wrong"], Err("unknown argument `--wrong`"));
        check(&["--json"], Err("`--json` is the form of a report, so it goes with `--check`"));
        check(&["--check=yes"], Err("unknown argument `--check=yes`"));
        check(&["a.yaml", "b.yaml"], Err("unknown argument `b.yaml`"));
        check(&["--dev"], Err("`--dev` needs an address and a port, such as 127.0.0.1:8080"));
        check(
            &["--dev", "localhost"],
            Err("`localhost` is no address with a port; write for example 127.0.0.1:8080"),
        );
        check(&["--dev=[::1]:1", "--dev", "[::1]:2"], Err("`--dev` is there twice"));
    }
}
