//! The command line, read by hand: so few commands do not earn a parser crate.

use anyhow::{Result, bail};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print this text and stop.
    Help(&'static str),
    /// Everything, as CI runs it.
    Ci(TestOptions),
    /// Everything that needs cargo alone.
    Test(TestOptions),
    /// The checks of the source tree.
    Tidy,
    /// Install what the optional checks need.
    Setup {
        /// Say what there is to install and what is installed, and change nothing.
        list: bool,
    },
    /// Measure; the arguments go to the benchmark unchanged.
    Bench(Vec<String>),
    /// Kill, cut, fill and damage; the arguments go to the torturer unchanged.
    Torture {
        /// Build the release profile.
        release: bool,
        /// What goes on.
        passed_on: Vec<String>,
    },
}

/// How `test` and `ci` go about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestOptions {
    /// Run the remaining steps after one has failed.
    pub(crate) keep_going: bool,
    /// What follows `--`: a filter or options of the test programs.
    pub(crate) passed_on: Vec<String>,
}

const OVERVIEW: &str = "\
Checks, tests and measures this workspace.

Usage: cargo xtask <command> [options]

Commands:
  test    format, clippy, tidy and tests; needs cargo alone
  ci      test, and what CI checks besides
  tidy    the rules of the source tree that a compiler does not know
  setup   install what the optional checks of `ci` need
  bench   measure against the ceilings in benches/
  torture kill agents, cut streams, fill disks, damage stores, and look what was lost

`cargo xtask help <command>` says more.

Example: cargo xtask test
";

const TEST: &str = "\
Runs format, clippy with warnings denied, tidy and all tests, and sums the tests up.

Usage: cargo xtask test [--keep-going] [-- <filter> …]

Options:
  --keep-going   run the remaining steps after one has failed

What follows `--` goes to the test programs: a part of a test's name, or their options.

Example: cargo xtask test --keep-going -- policy
";

const CI: &str = "\
Runs what `cargo xtask test` runs, then cargo-deny over bans, licences and sources.
A check whose tool is not installed is skipped, and named at the end.

Usage: cargo xtask ci [--keep-going] [-- <filter> …]

Example: cargo xtask ci --keep-going
";

const TIDY: &str = "\
Checks the rules that a compiler does not know: which crate may use which, purity, the
length of files, links in the documentation, what the dependency graph must not contain.
Each finding is one line: path, line, what is wrong and the cure.

Usage: cargo xtask tidy

Example: cargo xtask tidy
";

const SETUP: &str = "\
Installs what the optional checks of `cargo xtask ci` need: tools with `cargo install`, and
Python packages of foreign clients in a virtual environment at target/python.
What is installed already is left alone.

Usage: cargo xtask setup [--list]

Options:
  --list   say what there is to install and what is installed, and change nothing

Example: cargo xtask setup --list
";

const BENCH: &str = "\
Builds the release profile and measures against the ceilings in benches/.
Every argument goes to the benchmark unchanged.

Usage: cargo xtask bench [arguments …]

Example: cargo xtask bench --help
";

const TORTURE: &str = "\
Tortures an agent while clients write down what they are told, and has an independent checker
look whether all of it was true. It ends with a table, and with status 1 if anything was not.
Without options it takes about a quarter of an hour on two cores.

Usage: cargo xtask torture [options]

Options:
  --only CASES   some of R-01 (kills), R-06 (damaged stores), R-07 (full disks),
                 R-16 (cut streams), R-18 (repeated sends), R-19 (cancellations)
  --kills N      how often R-01 kills, instead of 200 times
  --long         as much as the reliability plan asks for, which takes hours
  --seed N       where chance begins; a run prints its own
  --victim FILE  another program to torture
  --release      build the release profile

Example: cargo xtask torture --only R-01,R-16 --kills 20
";

/// Reads the command line, without the program's own name.
///
/// # Errors
///
/// One sentence that names the argument it does not know and where the right ones are listed.
pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Command> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else { return Ok(Command::Help(OVERVIEW)) };
    let rest: Vec<String> = words.collect();
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        return match rest.first() {
            None => Ok(Command::Help(OVERVIEW)),
            Some(topic) => Ok(Command::Help(help(topic)?)),
        };
    }
    // The benchmark has options of its own, `--help` among them.
    if name == "bench" {
        return Ok(Command::Bench(rest));
    }
    if name == "torture" && !rest.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
        let release = rest.iter().any(|word| word == "--release");
        let passed_on = rest.into_iter().filter(|word| word != "--release").collect();
        return Ok(Command::Torture { release, passed_on });
    }
    let text = help(&name)?;
    let own = rest.split(|word| word == "--").next().unwrap_or_default();
    if own.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
        return Ok(Command::Help(text));
    }
    match name.as_str() {
        "ci" => Ok(Command::Ci(test_options("ci", rest)?)),
        "test" => Ok(Command::Test(test_options("test", rest)?)),
        "setup" => match rest.as_slice() {
            [] => Ok(Command::Setup { list: false }),
            [flag] if flag == "--list" => Ok(Command::Setup { list: true }),
            [.., word] => Err(unknown("setup", word)),
        },
        _ => match rest.first() {
            None => Ok(Command::Tidy),
            Some(word) => Err(unknown("tidy", word)),
        },
    }
}

fn test_options(command: &str, words: Vec<String>) -> Result<TestOptions> {
    let mut options = TestOptions::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep-going" => options.keep_going = true,
            "--" => options.passed_on = words.by_ref().collect(),
            _ => return Err(unknown(command, &word)),
        }
    }
    Ok(options)
}

fn help(command: &str) -> Result<&'static str> {
    Ok(match command {
        "ci" => CI,
        "test" => TEST,
        "tidy" => TIDY,
        "setup" => SETUP,
        "bench" => BENCH,
        "torture" => TORTURE,
        _ => bail!("unknown command `{command}`; `cargo xtask help` lists the commands"),
    })
}

fn unknown(command: &str, word: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "`cargo xtask {command}` does not know `{word}`; \
         `cargo xtask help {command}` lists what it knows"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    fn check(line: &str, expected: Command) {
        assert_eq!(parsed(line), Ok(expected), "{line}");
    }

    fn check_refused(line: &str, named: &str) {
        let error = parsed(line).unwrap_err();
        assert!(error.contains(named), "{line}: {error}");
    }

    #[test]
    fn commands() {
        check("tidy", Command::Tidy);
        check("setup --list", Command::Setup { list: true });
        check("setup", Command::Setup { list: false });
        check("test", Command::Test(TestOptions::default()));
        check(
            "ci --keep-going -- policy --nocapture",
            Command::Ci(TestOptions {
                keep_going: true,
                passed_on: vec!["policy".into(), "--nocapture".into()],
            }),
        );
        check("bench --help x", Command::Bench(vec!["--help".into(), "x".into()]));
        check(
            "torture --only R-01 --release",
            Command::Torture { release: true, passed_on: vec!["--only".into(), "R-01".into()] },
        );
    }

    #[test]
    fn help_is_found_everywhere_but_behind_the_dashes() {
        check("", Command::Help(OVERVIEW));
        check("--help", Command::Help(OVERVIEW));
        check("help test", Command::Help(TEST));
        check("test --help", Command::Help(TEST));
        check("help bench", Command::Help(BENCH));
        check("torture --help", Command::Help(TORTURE));
        check(
            "test -- --help",
            Command::Test(TestOptions { keep_going: false, passed_on: vec!["--help".into()] }),
        );
    }

    #[test]
    fn every_help_text_has_an_example() {
        for text in [OVERVIEW, TEST, CI, TIDY, SETUP, BENCH, TORTURE] {
            assert!(text.contains("\nExample: cargo xtask "), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_is_named() {
        check_refused("tset", "`tset`");
        check_refused("test --keepgoing", "`--keepgoing`");
        check_refused("tidy all", "`all`");
        check_refused("setup --list --fast", "`--fast`");
        check_refused("help nothing", "`nothing`");
    }
}
