//! Words for people: where they go and how they look.

use std::io::{IsTerminal, Write};

use crate::args::{Color, Output};
use crate::exit::Failure;
use crate::progress;
use convoke::Json;

/// Colours for standard error, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn for_stderr(when: Color) -> Self {
        Self::of(when, std::io::stderr().is_terminal())
    }

    /// Colours for standard output, or none.
    pub(crate) fn for_stdout(when: Color) -> Self {
        Self::of(when, std::io::stdout().is_terminal())
    }

    /// No colours.
    pub(crate) fn none() -> Self {
        Self { on: false }
    }

    fn of(when: Color, is_terminal: bool) -> Self {
        let on = match when {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: any non-empty value means none.
            Color::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { on }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn name(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Writes one line of words. A reader who has gone away is no reason to fail.
pub(crate) fn say(line: impl AsRef<str>) {
    progress::wipe();
    let mut stderr = std::io::stderr().lock();
    let _gone = writeln!(stderr, "{}", line.as_ref());
}

/// Prints the one line of a failure, and the cure below it.
pub(crate) fn failure(paint: Paint, failure: &Failure) {
    say(format!("{} {}", paint.bad("error:"), plain(&failure.message)));
    if let Some(hint) = &failure.hint {
        // A command that somebody may copy stands on a line of its own.
        for (number, line) in hint.lines().enumerate() {
            let begin = if number == 0 { paint.dim("hint:") } else { " ".repeat("hint:".len()) };
            say(format!("{begin} {}", plain(line)));
        }
    }
    if let Some(call) = &failure.call {
        let attempts = match call.attempts {
            0 => "not sent".to_owned(),
            1 => "one attempt".to_owned(),
            many => format!("{many} attempts"),
        };
        say(format!("{} {attempts}, trace {}", paint.dim("call:"), call.trace_id()));
    }
}

/// Prints a result on standard output.
pub(crate) fn result(json: &Json, output: Output) -> Result<(), Failure> {
    progress::wipe();
    let terminal = std::io::stdout().is_terminal();
    let text = match (output.pretty || (!output.json && terminal), terminal) {
        (true, _) => indent(json.get()),
        // What goes to a program goes as it came.
        (false, false) => json.get().to_owned(),
        (false, true) => json.get().chars().fold(String::new(), |mut out, c| {
            push_plain(&mut out, c);
            out
        }),
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::of_stdout(&error))
}

/// Replaces what would move the cursor or colour the terminal: an agent's words are not trusted
/// with somebody's terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if steers(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// As [`plain`], but lines stay lines.
pub(crate) fn plain_lines(text: &str) -> String {
    let kept = text.chars().filter(|c| *c != '\r');
    kept.map(|c| if steers(c) && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// Whether `c` moves a cursor, breaks a line or turns the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Adds a character of JSON text, as an escape if a terminal would obey it.
pub(crate) fn push_plain(out: &mut String, c: char) {
    if steers(c) && !c.is_ascii_whitespace() {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    } else {
        out.push(c);
    }
}

/// Indents JSON by two spaces a level without touching a value: what the agent wrote as 42.0 is
/// printed as 42.0.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut chars = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        for _ in 0..depth {
            out.push_str("  ");
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                let mut escaped = false;
                for c in chars.by_ref() {
                    push_plain(&mut out, c);
                    match c {
                        '"' if !escaped => break,
                        '\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.peek().is_some_and(|c| c.is_ascii_whitespace()) {
                    chars.next();
                }
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_changes_blanks_alone() {
        for (input, expected) in [
            ("{}", "{}"),
            ("[ ]", "[]"),
            ("42.0", "42.0"),
            (r#"{"a":1,"b":[1e2,"x"]}"#, "{\n  \"a\": 1,\n  \"b\": [\n    1e2,\n    \"x\"\n  ]\n}"),
            (r#"{"a\"b":"c,{}:\\"}"#, "{\n  \"a\\\"b\": \"c,{}:\\\\\"\n}"),
            (r#"{ "a" : { } }"#, "{\n  \"a\": {}\n}"),
            ("\"\u{9b}31m\"", "\"\\u009b31m\""),
            ("\"\u{202e}\u{2028}\"", "\"\\u202e\\u2028\""),
        ] {
            assert_eq!(indent(input), expected);
        }
    }

    #[test]
    fn a_message_cannot_drive_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{202e}"), "a\u{fffd}[31mb c\u{fffd}");
    }
}
