//! What we have, in OTLP's messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::message::{
    Any, AnyValue, Export, KeyValue, LogRecord, OfResource, OfScope, Resource, Scope, Span, Status,
    pair,
};
use crate::observe::trace::{Ended, Kind, Value};

/// Who sends: said once for each batch.
pub(super) struct Origin {
    resource: Resource,
    scope: Scope,
}

/// What can be sent.
pub(super) trait Item: Send + 'static {
    /// Its message.
    type Message: Message + Default + std::fmt::Debug;

    /// Writes it down.
    fn message(self) -> Self::Message;
}

/// A line of the log, on its way to a collector.
#[derive(Debug)]
pub(crate) struct LogLine {
    /// When it was written.
    pub(crate) at: SystemTime,
    /// How severe it is.
    pub(crate) level: tracing::Level,
    /// Its message, redacted, as it stands in a line.
    pub(crate) message: String,
    /// Its fields and those of its spans, redacted, as they stand in a line.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// The part of the program that it came from.
    pub(crate) logger: &'static str,
}

impl Origin {
    pub(super) fn new(name: &str, version: &str) -> Self {
        let text = |key, value: &str| pair(key, Any::Text(value.to_owned()));
        let program = env!("CARGO_PKG_VERSION");
        Self {
            resource: Resource {
                attributes: vec![
                    text("service.name", name),
                    text("service.version", version),
                    text("telemetry.sdk.name", "convoke"),
                    text("telemetry.sdk.language", "rust"),
                    text("telemetry.sdk.version", program),
                ],
            },
            scope: Scope { name: "convoke".to_owned(), version: program.to_owned() },
        }
    }

    /// One export of `items`.
    pub(super) fn export<T: Item>(&self, items: impl Iterator<Item = T>) -> Export<T::Message> {
        let items = items.map(T::message).collect();
        let scopes = vec![OfScope { scope: Some(self.scope.clone()), items }];
        Export { resources: vec![OfResource { resource: Some(self.resource.clone()), scopes }] }
    }
}

impl Item for Ended {
    type Message = Span;

    fn message(self) -> Span {
        let ended = self.begun + self.took;
        Span {
            trace_id: self.place.trace_id().to_be_bytes().to_vec(),
            span_id: self.place.span_id().to_be_bytes().to_vec(),
            parent_span_id: self.parent.map_or(Vec::new(), |id| id.to_be_bytes().to_vec()),
            name: self.name.into_owned(),
            kind: match self.kind {
                Kind::Internal => 1,
                Kind::Server => 2,
                Kind::Client => 3,
            },
            start_time_unix_nano: nanos(self.begun),
            end_time_unix_nano: nanos(ended),
            attributes: self.attributes.into_iter().map(attribute).collect(),
            status: self.end.map(|end| match end {
                Ok(()) => Status { message: String::new(), code: 1 },
                Err(message) => Status { message, code: 2 },
            }),
            // W3C's flag of a trace that is recorded.
            flags: 1,
        }
    }
}

fn attribute((name, value): (&'static str, Value)) -> KeyValue {
    pair(
        name,
        match value {
            Value::Text(text) => Any::Text(text.into_owned()),
            Value::Number(number) => Any::Number(number),
        },
    )
}

impl Item for LogLine {
    type Message = LogRecord;

    fn message(self) -> LogRecord {
        let mut record = LogRecord {
            time_unix_nano: nanos(self.at),
            observed_time_unix_nano: nanos(self.at),
            severity_number: severity(self.level),
            severity_text: self.level.as_str().to_owned(),
            body: Some(AnyValue { value: Some(Any::Text(unescaped(self.message))) }),
            ..LogRecord::default()
        };
        for (name, json) in self.fields {
            match name {
                "trace_id" => record.trace_id = bytes_of::<16>(&json),
                "span_id" => record.span_id = bytes_of::<8>(&json),
                _ => record.attributes.push(pair(name, of_json(json))),
            }
        }
        record.attributes.push(pair("logger", Any::Text(self.logger.to_owned())));
        record
    }
}

/// A field's value; what is neither text, number nor flag stays JSON text.
fn of_json(json: String) -> Any {
    match serde_json::from_str(&json) {
        Ok(serde_json::Value::String(text)) => Any::Text(text),
        Ok(serde_json::Value::Bool(flag)) => Any::Flag(flag),
        Ok(serde_json::Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Any::Number(number),
            (None, Some(number)) => Any::Real(number),
            (None, None) => Any::Text(json),
        },
        _ => Any::Text(json),
    }
}

/// A message without the escapes of a line; one that was not written as JSON is as people read it.
fn unescaped(message: String) -> String {
    serde_json::from_str(&format!("\"{message}\"")).unwrap_or(message)
}

/// The number that `hex` writes, or nothing, which OTLP takes for no number.
fn bytes_of<const BYTES: usize>(hex: &str) -> Vec<u8> {
    let hex = hex.trim_matches('"');
    let number = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2 * BYTES);
    number.map_or(Vec::new(), |number| number.to_be_bytes()[16 - BYTES..].to_vec())
}

/// Source: OpenTelemetry's log data model, "Severity Fields".
fn severity(level: tracing::Level) -> i32 {
    match level {
        tracing::Level::TRACE => 1,
        tracing::Level::DEBUG => 5,
        tracing::Level::INFO => 9,
        tracing::Level::WARN => 13,
        tracing::Level::ERROR => 17,
    }
}

/// A clock before 1970 reads as 1970.
fn nanos(at: SystemTime) -> u64 {
    let since: Duration = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
