//! Puts a line together.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use convoke_model::UnixMillis;
use tracing::Level;

use super::fields::Fields;
use super::{Format, LINE_BYTES_MAX, escape};

/// Keys that are ours; a field of that name gets an underscore at its end.
const RESERVED: [&str; 3] = ["timestamp", "level", "message"];

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
    pub(super) fn begin(style: Style, out: &'a mut String, level: Level, message: &str) -> Self {
        out.clear();
        // Writing to a string does not fail.
        let _ = match style.format {
            Format::Json => {
                write!(out, r#"{{"timestamp":"{}","level":"{level}","message":"{message}""#, now())
            }
            Format::Pretty => {
                let timestamp = now().to_string();
                // The time of day is all that a person at a terminal needs.
                let time = timestamp.get(11..23).unwrap_or(&timestamp);
                if style.colour {
                    let colour = colour(level);
                    write!(out, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m {message}")
                } else {
                    write!(out, "{time} {level:>5} {message}")
                }
            }
        };
        Self { style, out, cut: false }
    }

    /// Adds the fields whose names `skip` does not refuse.
    pub(super) fn fields(&mut self, fields: &Fields, skip: impl Fn(&str) -> bool) {
        for (name, value) in fields.iter() {
            if !skip(name) {
                self.field(name, value);
            }
        }
    }

    /// Adds one rendered field, unless the line is long enough already.
    pub(super) fn field(&mut self, name: &str, value: &str) {
        if self.out.len() + value.len() > LINE_BYTES_MAX {
            self.cut = true;
            return;
        }
        let reserved = if RESERVED.contains(&name) { "_" } else { "" };
        match self.style.format {
            Format::Json => {
                self.out.push_str(",\"");
                escape::push_json(self.out, name);
                self.out.push_str(reserved);
                self.out.push_str("\":");
            }
            Format::Pretty => {
                let (dim, plain) =
                    if self.style.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
                self.out.push(' ');
                self.out.push_str(dim);
                escape::push_plain(self.out, name);
                self.out.push_str(reserved);
                self.out.push('=');
                self.out.push_str(plain);
            }
        }
        self.out.push_str(value);
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
    let mut line = Line::begin(style, &mut out, Level::WARN, "log lines dropped");
    line.field("count", &count.to_string());
    line.end(Some(module_path!()));
    out
}

/// The wall clock; a clock before 1970 reads as 1970.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
