//! What programs read: results on standard output, failures on standard error, as JSON.

use std::io::Write;
use std::process::ExitCode;

use clap::ArgMatches;
use clap::error::{ContextKind, ErrorKind};
use serde_json::{Value, json};

use crate::exit::{Code, Failure};
use crate::paint::say;
use crate::progress;

/// Prints a result: one line of JSON on standard output.
pub(crate) fn print(json: &Value) -> Result<(), Failure> {
    progress::wipe();
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{json}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::of_stdout(&error))
}

/// Prints a text that is a result by itself, such as a script.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::of_stdout(&error))
}

/// Prints a failure: one line of JSON on standard error.
pub(crate) fn failure(failure: &Failure) {
    say(failure_json(failure).to_string());
}

fn failure_json(failure: &Failure) -> Value {
    let mut error = json!({
        "code": failure.code.name(),
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.code as u8,
    });
    if let Some(call) = &failure.call {
        error["attempts"] = call.attempts.into();
        error["trace_id"] = call.trace_id().into();
    }
    json!({ "error": error })
}

/// Whether the command that was given is to report as JSON.
pub(crate) fn wants_json(matches: &ArgMatches) -> bool {
    let own = matches.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false);
    own || matches.subcommand().is_some_and(|(_, below)| wants_json(below))
}

/// Tells what is wrong with the command line, or prints the help that was asked for.
pub(crate) fn of_clap(error: &clap::Error) -> ExitCode {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // The command line could not be read, so this is all that is known of what was wanted.
    let as_json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if is_answer || !as_json {
        // A reader who has gone away is no reason to fail.
        let _gone = error.print();
        return if is_answer { ExitCode::SUCCESS } else { ExitCode::from(Code::Usage as u8) };
    }
    failure(&of_command_line(error));
    ExitCode::from(Code::Usage as u8)
}

fn of_command_line(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut message = Vec::new();
    for line in text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")) {
        if !line.is_empty() && !line.starts_with("tip:") && !line.starts_with("For more") {
            message.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let hint = tip.map(str::to_owned).or_else(|| {
        let line = usage?.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Some(line.trim().to_owned())
    });
    let failure = Failure::new(Code::Usage, message.join(" "));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::exit::Made;
    use clap::CommandFactory;
    use convoke_model::TraceContext;

    #[test]
    fn a_failure_is_one_object() {
        let failure = Failure::new(Code::Unreachable, "no\nbody").hint("wait");
        assert_eq!(
            failure_json(&failure).to_string(),
            r#"{"error":{"code":"unreachable","exit_code":4,"hint":"wait","message":"no\nbody"}}"#
        );
        let call = Made { attempts: 3, trace: TraceContext::root(0xab, 1, true) };
        let error = &failure_json(&Failure { call: Some(Box::new(call)), ..failure })["error"];
        assert_eq!(error["attempts"], 3);
        assert_eq!(error["trace_id"], "000000000000000000000000000000ab");
    }

    #[test]
    fn json_is_asked_for_at_any_depth() {
        let check = |line: &str, expected: bool| {
            let matches = Cli::command().try_get_matches_from(line.split(' ')).unwrap();
            assert_eq!(wants_json(&matches), expected, "{line}");
        };
        check("convoke identity entry list --json", true);
        check("convoke identity entry list", false);
        check("convoke validate --json a.yaml", true);
        check("convoke completions bash", false);
    }

    #[test]
    fn a_wrong_command_line_is_a_failure_with_a_hint() {
        let check = |line: &str, message: &str, hint: &str| {
            let error = Cli::command().try_get_matches_from(line.split(' ')).unwrap_err();
            let failure = of_command_line(&error);
            assert_eq!(failure.message, message);
            let found = failure.hint.unwrap_or_default();
            assert!(found.contains(hint), "{found}");
        };
        check("convoke valid", "unrecognized subcommand 'valid'", "validate");
        check(
            "convoke validate",
            "the following required arguments were not provided: <CONFIG>...",
            "convoke validate",
        );
    }
}
