//! The command line: which cases, how much of each, from which seed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cases::cuts::Cuts;
use crate::cases::damage::Damage;
use crate::cases::disk_full::DiskFull;
use crate::cases::kills::Kills;
use crate::cases::races::Races;
use crate::cases::sends::Sends;

/// Every case, in the order in which they are done.
pub const CASES: [&str; 6] = ["R-01", "R-06", "R-07", "R-16", "R-18", "R-19"];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// As much as the reliability plan says, however long it takes.
    pub long: bool,
    /// Only these.
    pub only: Vec<String>,
    /// Where chance begins.
    pub seed: Option<u64>,
    /// How often R-01 kills.
    pub kills: Option<u32>,
    /// Another program to torture.
    pub victim: Option<PathBuf>,
}

/// Reads the command line, without the program's own name.
///
/// # Errors
///
/// One sentence that names the argument it does not know, or what is wrong with its value.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--long" => options.long = true,
            "--only" => {
                for case in value()?.split(',') {
                    ensure!(
                        CASES.contains(&case),
                        "there is no case `{case}`; there are {}",
                        CASES.join(", ")
                    );
                    options.only.push(case.to_owned());
                }
            }
            "--seed" => options.seed = Some(number(&word, &value()?)?),
            "--kills" => options.kills = Some(number(&word, &value()?)?),
            "--victim" => options.victim = Some(value()?.into()),
            _ => bail!("unknown argument `{word}`; `cargo xtask help torture` lists what there is"),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(word: &str, text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("`{word}` takes a number, and `{text}` is none"))
}

/// How much of each case.
#[derive(Debug, Clone)]
pub struct Amounts {
    ///
    pub kills: Kills,
    ///
    pub damage: Damage,
    ///
    pub disk_full: DiskFull,
    ///
    pub cuts: Cuts,
    ///
    pub sends: Sends,
    ///
    pub races: Races,
}

impl Amounts {
    /// What is done within `cargo xtask test`: a minute on two cores, without optimisation.
    #[must_use]
    pub fn small() -> Self {
        let time_max = Duration::from_secs(20);
        Self {
            kills: Kills {
                kills: 10,
                clients: 16,
                life_max: Duration::from_millis(600),
                pause_max: Duration::from_millis(200),
                time_max,
            },
            damage: Damage { tasks: 40, flips: 100, zeroed: 10, cut: 20, time_max },
            disk_full: DiskFull { fills: 3, disk_mib: 64, clients: 4, time_max },
            cuts: Cuts { cuts: 200, readers: 4, time_max },
            sends: Sends { rounds: 20, copies: 100, kills_percent: 20, time_max },
            races: Races { races: 200, racers: 8, time_max },
        }
    }

    /// What is done when nothing is said: a quarter of an hour on two cores.
    #[must_use]
    pub fn usual() -> Self {
        let time_max = Duration::from_secs(90);
        Self {
            kills: Kills {
                kills: 200,
                clients: 64,
                life_max: Duration::from_secs(3),
                pause_max: Duration::from_millis(800),
                time_max: Duration::from_secs(480),
            },
            damage: Damage { tasks: 200, flips: 200, zeroed: 50, cut: 50, time_max },
            disk_full: DiskFull { fills: 50, disk_mib: 512, clients: 8, time_max },
            cuts: Cuts { cuts: 20_000, readers: 16, time_max },
            sends: Sends { rounds: 10_000, copies: 100, kills_percent: 5, time_max },
            races: Races { races: 20_000, racers: 32, time_max },
        }
    }

    /// What the reliability plan asks for, however long it takes.
    #[must_use]
    pub fn long() -> Self {
        let usual = Self::usual();
        let time_max = Duration::from_secs(4 * 3600);
        Self {
            kills: Kills { kills: 3_000, time_max, ..usual.kills },
            damage: Damage { flips: 2_000, zeroed: 200, cut: 500, time_max, ..usual.damage },
            disk_full: DiskFull { time_max, ..usual.disk_full },
            cuts: Cuts { time_max, ..usual.cuts },
            sends: Sends { time_max, ..usual.sends },
            races: Races { time_max, ..usual.races },
        }
    }

    /// What these options ask for.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let mut amounts = if options.long { Self::long() } else { Self::usual() };
        if let Some(kills) = options.kills {
            amounts.kills.kills = kills;
        }
        amounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(line.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        let expected = Options {
            long: true,
            only: vec!["R-01".into(), "R-19".into()],
            seed: Some(7),
            kills: Some(20),
            victim: None,
        };
        assert_eq!(parsed("--long --only R-01,R-19 --seed 7 --kills 20"), Ok(expected));
        assert_eq!(parsed(""), Ok(Options::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("--only R-99", "`R-99`"),
            ("--seed x", "`x`"),
            ("--seed", "`--seed` needs"),
            ("--lnog", "`--lnog`"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
