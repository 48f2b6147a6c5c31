//! Puts a line together.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use convoke_model::{TimestampText, UnixMillis};
use tracing::Level;

use super::fields::Fields;
use super::{Format, LINE_BYTES_MAX, escape};

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) format: Format,
    pub(super) colour: bool,
}

/// A line that is being written.
pub(super) struct Line<'a> {
    style: Style,
    out: &'a mut String,
    cut: bool,
}

impl<'a> Line<'a> {
    /// Begins a line in `out`; `message` has been escaped for the format.
    pub(super) fn begin(
        style: Style,
        out: &'a mut String,
        at: SystemTime,
        level: Level,
        message: &str,
    ) -> Self {
        out.clear();
        let time = timestamp(at);
        match style.format {
            Format::Json => {
                out.push_str("{\"timestamp\":\"");
                out.push_str(time.as_str());
                out.push_str("\",\"level\":\"");
                out.push_str(level.as_str());
                out.push_str("\",\"message\":\"");
                out.push_str(message);
                out.push('"');
            }
            Format::Pretty => {
                // The time of day is all that a person at a terminal needs.
                let time = time.as_str().get(11..23).unwrap_or_default();
                // Writing to a string does not fail.
                let _ = if style.colour {
                    let colour = colour(level);
                    write!(out, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m {message}")
                } else {
                    write!(out, "{time} {level:>5} {message}")
                };
            }
        }
        Self { style, out, cut: false }
    }

    /// Adds all fields, if none of them has to be left out.
    pub(super) fn all(&mut self, fields: &Fields) {
        match fields.all() {
            Some(all) if self.out.len() + all.len() <= LINE_BYTES_MAX => self.out.push_str(all),
            _ => self.fields(fields, |_| false),
        }
    }

    /// Adds the fields whose names `skip` does not refuse, as long as the line has room for them.
    pub(super) fn fields(&mut self, fields: &Fields, skip: impl Fn(&str) -> bool) {
        for (name, whole) in fields.iter() {
            if skip(name) {
                continue;
            }
            if self.out.len() + whole.len() > LINE_BYTES_MAX {
                self.cut = true;
                continue;
            }
            self.out.push_str(whole);
        }
    }

    /// Ends the line, naming the part of the program that it came from.
    pub(super) fn end(self, logger: Option<&str>) {
        if let Format::Json = self.style.format {
            if self.cut {
                self.out.push_str(",\"truncated\":true");
            }
            if let Some(logger) = logger {
                self.out.push_str(",\"logger\":\"");
                escape::push_json(self.out, logger);
                self.out.push('"');
            }
            self.out.push('}');
        } else if self.cut {
            self.out.push_str(" …");
        }
        self.out.push('\n');
    }
}

/// The line that says that lines are missing.
pub(super) fn dropped(style: Style, count: u64) -> String {
    let mut out = String::new();
    let mut fields = Fields::default();
    fields.push(style, "count", |out| out.push_str(&count.to_string()));
    let now = SystemTime::now();
    let mut line = Line::begin(style, &mut out, now, Level::WARN, "log lines dropped");
    line.all(&fields);
    line.end(Some(module_path!()));
    out
}

/// A clock before 1970 reads as 1970.
fn timestamp(at: SystemTime) -> TimestampText {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).to_text()
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}
