//! `convoke man`: manual pages and the reference, made of the same table as the help.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use serde_json::json;

use crate::args::{Cli, Man};
use crate::exit::{Code, Failure, TABLE};
use crate::output;
use crate::paint::{Paint, say};

/// What the reference says before it comes to the commands.
const INTRODUCTION: &str = include_str!("man/introduction.md");

/// What the reference says of a command beside its help.
const NOTES: [(&str, &str); 6] = [
    ("task", include_str!("man/task.md")),
    ("serve", include_str!("man/serve.md")),
    ("doctor", include_str!("man/doctor.md")),
    ("validate", include_str!("man/validate.md")),
    ("identity", include_str!("man/identity.md")),
    ("data", include_str!("man/data.md")),
];

/// The environment variables, with what they are for.
const ENVIRONMENT: [(&str, &str); 10] = [
    (
        "SPIFFE_ENDPOINT_SOCKET",
        "the Workload API's socket, where neither `--socket` nor `identity.spire_socket` names one",
    ),
    ("CONVOKE_SECTION__KEY", "overrides a key of the configuration, as in `CONVOKE_SERVER__PORT`"),
    ("AGENTWEAVE_…", "the same under the names of the tutorial; see the configuration's reference"),
    ("CONVOKE_DATA_DIR", "the parent of all data directories"),
    ("XDG_STATE_HOME", "without the one above, data is in `convoke` below it"),
    ("HOME", "without either, data is in `.local/state/convoke` below it"),
    ("CONVOKE_LOG", "what is logged, such as `debug` or `info,hyper=debug`"),
    ("NO_COLOR", "if it is not empty, no colours"),
    ("COLUMNS", "the width of help, if it is not on a terminal; at most 100"),
    ("TMPDIR", "where the demo makes its directory"),
];

/// The files that are used unless something else is said.
const FILES: [(&str, &str); 5] = [
    ("/tmp/spire-agent/public/api.sock", "the Workload API's socket"),
    ("~/.local/state/convoke/DOMAIN/PATH/", "the data directory of the agent spiffe://DOMAIN/PATH"),
    ("audit.jsonl", "its audit trail, in the data directory"),
    ("journal/journal.db", "its tasks, in the data directory"),
    ("~/.local/state/convoke/issuer/DOMAIN/", "the embedded issuer's key and entries"),
];

pub(crate) fn run(options: &Man, paint: Paint) -> Result<(), Failure> {
    if options.markdown {
        return output::print_text(&markdown());
    }
    let pages = pages();
    let Some(dir) = &options.dir else {
        let first = pages.first().map(|page| page.text.as_str());
        return output::print_text(first.unwrap_or_default());
    };
    let fail = |path: &Path, error: std::io::Error| {
        Failure::of_file(Code::Failure, path.display(), &error)
            .hint("name a directory that you may write to, such as ~/.local/share/man/man1")
    };
    std::fs::create_dir_all(dir).map_err(|error| fail(dir, error))?;
    let mut written = Vec::new();
    for page in pages {
        let path = dir.join(format!("{}.1", page.name));
        std::fs::write(&path, page.text).map_err(|error| fail(&path, error))?;
        written.push(path.display().to_string());
    }
    if options.json {
        return output::print(&json!({ "written": written }));
    }
    say(format!("{} {} pages in {}", paint.good("written:"), written.len(), dir.display()));
    Ok(())
}

/// One manual page.
struct Page {
    /// Such as `convoke-card-show`.
    name: String,
    text: String,
}

/// The pages of all commands, that of `convoke` itself first.
fn pages() -> Vec<Page> {
    let mut all = Vec::new();
    walk(&table(), &mut Vec::new(), &mut |command, path| {
        let name = [&["convoke".to_owned()], path].concat();
        all.push(Page { name: name.join("-"), text: page(command, &name) });
    });
    all
}

/// All commands as clap knows them, with everything that it adds.
fn table() -> clap::Command {
    let mut table = Cli::command();
    table.build();
    table
}

/// The commands below `command` that are for people; `help` is in every command's options.
fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

/// Calls `visit` with each command and the names that lead to it.
fn walk(
    command: &clap::Command,
    path: &mut Vec<String>,
    visit: &mut dyn FnMut(&clap::Command, &[String]),
) {
    visit(command, path);
    for below in shown(command) {
        path.push(below.get_name().to_owned());
        walk(below, path, visit);
        path.pop();
    }
}

fn page(command: &clap::Command, name: &[String]) -> String {
    let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // The example has a section of its own.
    let named =
        command.clone().display_name(name.join("-")).bin_name(name.join(" ")).after_help("");
    let manual = clap_mangen::Man::new(named).source("Convoke").manual("Convoke");
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _written = manual
        .render_title(&mut text)
        .and_then(|()| manual.render_name_section(&mut text))
        .and_then(|()| manual.render_synopsis_section(&mut text))
        .and_then(|()| manual.render_description_section(&mut text))
        .and_then(|()| manual.render_options_section(&mut text));
    let mut rest = Roff::new();
    if shown(command).next().is_some() {
        rest.control("SH", ["COMMANDS"]);
        for below in shown(command) {
            let page = format!("{}-{}(1)", name.join("-"), below.get_name());
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            item(&mut rest, &page, &about);
        }
    }
    if name.len() == 1 {
        rest.control("SH", ["FILES"]);
        FILES.iter().for_each(|(path, what)| item(&mut rest, path, what));
    } else if !example.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        rest.control("nf", []);
        let lines = example.lines().map(|line| line.strip_prefix("Example:").unwrap_or(line));
        lines.skip_while(|line| line.is_empty()).for_each(|line| plain(&mut rest, line));
        rest.control("fi", []);
    }
    rest.control("SH", ["EXIT STATUS"]);
    for row in TABLE {
        let what = match row.cause {
            "" => row.meaning.to_owned(),
            cause => format!("{}: {cause}", row.meaning),
        };
        item(&mut rest, &row.number.to_string(), &what);
    }
    rest.control("SH", ["ENVIRONMENT"]);
    ENVIRONMENT.iter().for_each(|(variable, what)| item(&mut rest, variable, what));
    if let Some((_, above)) = name.split_last().filter(|(_, above)| !above.is_empty()) {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold(format!("{}(1)", above.join("-")))]);
    }
    String::from_utf8_lossy(&text).into_owned() + &rest.to_roff()
}

fn item(roff: &mut Roff, term: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(what)]);
}

fn plain(roff: &mut Roff, line: &str) {
    let inline: [Inline; 1] = [roman(line)];
    roff.text(inline);
}

/// The reference of all commands.
fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("\n## Exit codes\n\n| code | meaning | typical cause | `code` in JSON |\n|---|---|---|---|\n");
    for row in TABLE {
        let _written =
            writeln!(out, "| {} | {} | {} | `{}` |", row.number, row.meaning, row.cause, row.name);
    }
    out.push_str("\n## Environment variables\n\n| variable | meaning |\n|---|---|\n");
    for (variable, what) in ENVIRONMENT {
        let _written = writeln!(out, "| `{variable}` | {what} |");
    }
    out.push_str("\n## Files\n\n| file | what it is |\n|---|---|\n");
    for (path, what) in FILES {
        let _written = writeln!(out, "| `{path}` | {what} |");
    }
    walk(&table(), &mut Vec::new(), &mut |_, path| {
        let name = [&["convoke".to_owned()], path].concat().join(" ");
        // A level of headings for each level of commands.
        let level = "#".repeat(path.len().clamp(1, 3) + 1);
        let help = help(path);
        let note = NOTES.iter().find(|(of, _)| path == [*of]).map(|(_, note)| *note);
        let note = note.map(|note| format!("{}\n\n", note.trim_end())).unwrap_or_default();
        let _written =
            write!(out, "\n{level} {name}\n\n{note}<!-- help: {name} -->\n```text\n{help}```\n");
    });
    out
}

/// The help of the command that `path` leads to, as it is printed.
fn help(path: &[String]) -> String {
    let words = std::iter::once("convoke").chain(path.iter().map(String::as_str));
    let asked = Cli::command().term_width(WIDTH).try_get_matches_from(words.chain(["--help"]));
    // Help is what clap calls an error.
    let text = asked.err().map(|help| help.render().to_string()).unwrap_or_default();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The width of the help in the reference: that of help which is not on a terminal.
const WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_sections() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        for name in ["convoke", "convoke-call", "convoke-card-show", "convoke-identity-entry-add"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for page in &pages {
            for section in ["NAME", "SYNOPSIS", "EXIT STATUS", "ENVIRONMENT"] {
                let heading = format!(".SH {section}\n");
                let quoted = format!(".SH \"{section}\"\n");
                let has = page.text.contains(&heading) || page.text.contains(&quoted);
                assert!(has, "{}: {section}:\n{}", page.name, page.text);
            }
        }
        let call = pages.iter().find(|page| page.name == "convoke-call").unwrap();
        assert!(call.text.contains("process_document"), "{}", call.text);
    }
}
