//! One line: what it says, whether it is wanted, and how it looks.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::source::Line;
use crate::args::{Level, Logs};
use crate::paint::{Paint, push_plain};

/// A line of a log or of an audit trail: its fields in their order, with values as they were
/// written.
pub(super) struct Entry<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entry<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entry<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry<'de>, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Entry(fields))
            }
        }
        from.deserialize_map(Fields)
    }
}

impl<'a> Entry<'a> {
    /// Reads a line; `None` if it is no line of ours.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let entry: Self = serde_json::from_str(text).ok()?;
        (entry.text("timestamp").is_some() && entry.kind().is_some()).then_some(entry)
    }

    /// The agent whose log begins with this line.
    pub(super) fn introduces(&self) -> Option<String> {
        let is_first = self.text("message").as_deref() == Some("Loaded SPIFFE identity");
        is_first.then(|| self.text("spiffe_id")).flatten()
    }

    pub(super) fn time(&self) -> Option<String> {
        self.text("timestamp")
    }

    fn kind(&self) -> Option<Kind> {
        if let Some(event) = self.text("event_type") {
            return Some(match self.text("decision") {
                Some(decision) if event == "authorization" => Kind::Decision(decision == "allow"),
                _ => Kind::Event,
            });
        }
        let level = match self.text("level")?.as_str() {
            "TRACE" => Level::Trace,
            "DEBUG" => Level::Debug,
            "INFO" => Level::Info,
            "WARN" => Level::Warn,
            "ERROR" => Level::Error,
            _ => return None,
        };
        Some(Kind::Log(level))
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(*value))
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }
}

/// What kind of line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log(Level),
    /// A decision on record, and whether it allowed.
    Decision(bool),
    /// Something else on record.
    Event,
}

impl Kind {
    fn level(self) -> Level {
        match self {
            Self::Log(level) => level,
            Self::Decision(false) => Level::Warn,
            Self::Decision(true) | Self::Event => Level::Info,
        }
    }
}

/// Which lines are wanted.
#[derive(Debug, Default)]
pub(super) struct Pick {
    level: Option<Level>,
    agent: Option<String>,
    caller: Option<String>,
    capability: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    since: Option<String>,
    no_foreign: bool,
}

impl Pick {
    /// As `options` say, of lines from `since` on.
    pub(super) fn new(options: &Logs, since: Option<String>) -> Self {
        Self {
            level: options.level,
            agent: options.agent.clone(),
            caller: options.caller.clone(),
            capability: options.capability.clone(),
            request_id: options.request_id.clone(),
            trace_id: options.trace_id.clone(),
            since,
            no_foreign: options.json,
        }
    }

    /// Whether a line is wanted; `None` is one that is not of ours. `agent` is whose log it is in.
    pub(super) fn wants(&self, entry: Option<&Entry<'_>>, agent: Option<&str>) -> bool {
        let Some(entry) = entry else { return self.wants_all() };
        let level = entry.kind().map(Kind::level);
        let is = |wanted: &Option<String>, names: &[&str], fits: fn(&str, &str) -> bool| {
            wanted.as_deref().is_none_or(|wanted| {
                names.iter().filter_map(|name| entry.text(name)).any(|found| fits(&found, wanted))
            })
        };
        let starts = |found: &str, wanted: &str| found.starts_with(wanted);
        let equals = |found: &str, wanted: &str| found == wanted;
        let of_agent = self.agent.as_deref().is_none_or(|wanted| {
            let named = entry.text("agent_spiffe_id").or_else(|| agent.map(str::to_owned));
            named.is_some_and(|named| is_id(&named, wanted))
        });
        let late_enough = match (&self.since, entry.time()) {
            (None, _) => true,
            (Some(since), time) => time.is_some_and(|time| time >= *since),
        };
        self.level.is_none_or(|wanted| level.is_some_and(|level| level >= wanted))
            && of_agent
            && is(&self.caller, &["caller_spiffe_id", "caller"], is_id)
            && is(&self.capability, &["capability"], equals)
            && is(&self.request_id, &["request_id"], starts)
            && is(&self.trace_id, &["trace_id"], starts)
            && late_enough
    }

    /// Whether nothing is picked, so that lines that say nothing of themselves are wanted too.
    fn wants_all(&self) -> bool {
        let picked =
            [&self.agent, &self.caller, &self.capability, &self.request_id, &self.trace_id];
        !self.no_foreign
            && self.level.is_none()
            && self.since.is_none()
            && picked.iter().all(|wanted| wanted.is_none())
    }
}

/// Whether `id` is the one that is meant by all of it or by its last parts.
fn is_id(id: &str, wanted: &str) -> bool {
    let end = id.strip_suffix(wanted.trim_start_matches('/'));
    id == wanted || end.is_some_and(|before| before.ends_with('/'))
}

/// Lines as they are shown.
pub(super) struct Page {
    paint: Paint,
    as_written: bool,
    /// The day of the line before.
    day: String,
}

/// Columns for what a line begins with, after its time.
const WORD_WIDTH: usize = 7;

impl Page {
    pub(super) fn new(paint: Paint, as_written: bool) -> Self {
        Self { paint, as_written, day: String::new() }
    }

    /// `line`, which says `entry`, with its end.
    pub(super) fn show(&mut self, line: &Line, entry: Option<&Entry<'_>>) -> String {
        let mut out = String::new();
        let entry = entry.filter(|_| !self.as_written);
        match entry.and_then(|entry| Some((entry, entry.kind()?))) {
            Some((entry, kind)) => self.entry(&mut out, entry, kind),
            None => shown(&mut out, &line.text),
        }
        if line.is_cut {
            out.push_str(" …");
        }
        out.push('\n');
        out
    }

    fn entry(&mut self, out: &mut String, entry: &Entry<'_>, kind: Kind) {
        let time = entry.time().unwrap_or_default();
        let (day, clock) = time.split_once('T').unwrap_or(("", &time));
        if day != self.day {
            self.day = day.to_owned();
            let mut plain = String::new();
            shown(&mut plain, day);
            out.push_str(&self.paint.dim(&format!("── {plain} (UTC) ──")));
            out.push('\n');
        }
        let mut plain = String::new();
        shown(&mut plain, clock.trim_end_matches('Z'));
        out.push_str(&self.paint.dim(&plain));
        out.push(' ');
        let paint = self.paint;
        let word = |word: &str| format!("{word:<WORD_WIDTH$}");
        out.push_str(&match kind {
            Kind::Log(Level::Error) => paint.bad(&word("ERROR")),
            Kind::Log(Level::Warn) => paint.warn(&word("WARN")),
            Kind::Log(Level::Info) => paint.good(&word("INFO")),
            Kind::Log(Level::Debug) => paint.dim(&word("DEBUG")),
            Kind::Log(Level::Trace) => paint.dim(&word("TRACE")),
            Kind::Decision(true) => paint.good(&word("allowed")),
            Kind::Decision(false) => paint.bad(&word("refused")),
            Kind::Event => paint.name(&word("event")),
        });
        let said = match kind {
            Kind::Log(_) => &["timestamp", "level", "message"][..],
            Kind::Decision(_) => &[
                "timestamp",
                "event_type",
                "decision",
                "caller_spiffe_id",
                "agent_spiffe_id",
                "capability",
            ],
            Kind::Event => &["timestamp", "event_type", "version", "agent_spiffe_id"],
        };
        let text = |name: &str| {
            let mut plain = String::new();
            shown(&mut plain, &entry.text(name).unwrap_or_default());
            plain
        };
        out.push(' ');
        match kind {
            Kind::Log(_) => out.push_str(&text("message")),
            Kind::Decision(_) => {
                let asked = text(if entry.raw("capability").is_some() {
                    "capability"
                } else {
                    "operation"
                });
                let (caller, agent) = (text("caller_spiffe_id"), text("agent_spiffe_id"));
                let (caller, agent) = (paint.name(&caller), paint.name(&agent));
                out.push_str(&format!("{caller} → {agent} {asked}"));
            }
            Kind::Event => {
                let agent = text("agent_spiffe_id");
                out.push_str(&format!("{} {}", paint.name(&agent), text("event_type")));
            }
        }
        for (name, value) in entry.0.iter().filter(|(name, _)| !said.contains(&name.as_str())) {
            let mut plain = String::new();
            shown(&mut plain, name);
            out.push(' ');
            out.push_str(&paint.dim(&format!("{plain}=")));
            self::value(out, value);
        }
    }
}

/// A value: a text that is one word without quotes, all else as it was written.
fn value(out: &mut String, value: &RawValue) {
    let is_word = |text: &str| {
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='))
    };
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) if is_word(&text) => shown(out, &text),
        _ => shown(out, value.get()),
    }
}

/// Adds `text` so that a terminal shows it and obeys none of it.
fn shown(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => push_plain(out, c),
        }
    }
}

#[cfg(test)]
mod tests;
