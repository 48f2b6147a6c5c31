//! The layer between tracing and the lines.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::LINE_BYTES_MAX;
use super::export::LogExport;
use super::fields::{Fields, Recorder, SecretNames};
use super::line::{Line, Style};
use super::redact::Redactor;
use super::sampling::{Held, Sampling};
use super::sink::Sink;

thread_local! {
    /// Buffers that events of this thread use again and again.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// How many calls of the layer this thread is in: a value's `Debug` may log.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// How many events of this thread became lines, counted round.
    static LINES: Cell<u64> = const { Cell::new(0) };
}

/// Whether this thread is inside of a log.
pub(super) fn is_at_work() -> bool {
    DEPTH.get() > 0
}

/// How many events of this thread became lines so far; after the largest number comes zero.
pub(super) fn lines_of_this_thread() -> u64 {
    LINES.get()
}

/// Says that this thread is inside of a log, until it is dropped.
struct AtWork;

impl AtWork {
    fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

#[derive(Default)]
struct Scratch {
    fields: Fields,
    message: String,
    raw: String,
    clean: String,
    line: String,
    secret_names: SecretNames,
}

/// Writes one line per event. One of these belongs to one subscriber, because the rendered fields
/// of a span are kept with the span.
pub(super) struct Lines {
    pub(super) style: Style,
    pub(super) sink: Sink,
    pub(super) redactor: Redactor,
    pub(super) sampling: Sampling,
    pub(super) export: Option<LogExport>,
}

/// The rendered fields of a span.
struct SpanFields(Fields);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let _at_work = AtWork::begin();
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        self.with_scratch(|scratch| {
            attributes.record(&mut self.recorder(&mut fields, scratch));
        });
        if fields.is_empty() {
            return;
        }
        let held = fields.value("trace_id").and_then(|trace_id| self.sampling.hold(trace_id));
        let mut extensions = span.extensions_mut();
        extensions.replace(SpanFields(fields));
        if let Some(held) = held {
            extensions.replace(held);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let _at_work = AtWork::begin();
        let Some(span) = context.span(id) else { return };
        // Rendered before the span is locked: a value's `Debug` may log in this very span.
        let mut added = Fields::default();
        self.with_scratch(|scratch| values.record(&mut self.recorder(&mut added, scratch)));
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<SpanFields>() {
            Some(SpanFields(fields)) => fields.absorb(&added),
            None => {
                extensions.replace(SpanFields(added));
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let _at_work = AtWork::begin();
        self.with_scratch(|scratch| self.write(event, &context, scratch));
        LINES.set(LINES.get().wrapping_add(1));
    }
}

impl Lines {
    /// Lends this thread's buffers, or new ones: they are taken when a field's `Debug` logs while it
    /// is being logged, and gone when a thread logs at its very end.
    fn with_scratch(&self, mut work: impl FnMut(&mut Scratch)) {
        let done = SCRATCH.try_with(|scratch| {
            let mut scratch = scratch.try_borrow_mut().ok()?;
            work(&mut scratch);
            Some(())
        });
        if !matches!(done, Ok(Some(()))) {
            work(&mut Scratch::default());
        }
    }

    /// Records into `fields` with the buffers of `scratch` that are not in use for the line.
    fn recorder<'a>(&'a self, fields: &'a mut Fields, scratch: &'a mut Scratch) -> Recorder<'a> {
        Recorder {
            style: self.style,
            redactor: &self.redactor,
            secret_names: &mut scratch.secret_names,
            fields,
            message: None,
            raw: &mut scratch.raw,
            clean: &mut scratch.clean,
        }
    }

    fn write<S>(&self, event: &Event<'_>, context: &Context<'_, S>, scratch: &mut Scratch)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Scratch { fields, message, raw, clean, line: out, secret_names } = scratch;
        fields.clear();
        message.clear();
        event.record(&mut Recorder {
            style: self.style,
            redactor: &self.redactor,
            secret_names,
            fields,
            message: Some(message),
            raw,
            clean,
        });

        let (at, metadata) = (SystemTime::now(), event.metadata());
        let mut line = Line::begin(self.style, out, at, *metadata.level(), message);
        line.all(fields);
        let mut has_logger = fields.has("logger");
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let mut spans = spans.peekable();
        while let Some(span) = spans.next() {
            let extensions = span.extensions();
            let Some(SpanFields(outer)) = extensions.get() else { continue };
            has_logger |= outer.has("logger");
            let is_innermost = spans.peek().is_none();
            if is_innermost && !outer.meets(fields) {
                line.all(outer);
                continue;
            }
            // The innermost value of a name is the one that is true for the event.
            line.fields(outer, |name| {
                fields.has(name) || has_inner(context, event, &span.id(), name)
            });
        }
        line.end((!has_logger).then_some(metadata.target()));

        let went_wrong = *metadata.level() <= Level::WARN || fields.has("error");
        match self.sampling.is_on().then(|| context.event_scope(event)).flatten() {
            Some(mut scope) => match scope.find(is_held) {
                Some(span) => {
                    if let Some(held) = span.extensions().get::<Held>() {
                        held.take(out.as_bytes(), went_wrong, &self.sink);
                    }
                }
                None => self.sink.write_line(out.as_bytes(), went_wrong),
            },
            None => self.sink.write_line(out.as_bytes(), went_wrong),
        }
        if let Some(export) = &self.export {
            let scope = context.event_scope(event).into_iter().flatten();
            let mut all: Vec<(&'static str, String)> =
                fields.values().map(|(name, value)| (name, value.to_owned())).collect();
            for span in scope {
                let extensions = span.extensions();
                let Some(SpanFields(outer)) = extensions.get() else { continue };
                for (name, value) in outer.values() {
                    if !all.iter().any(|(known, _)| *known == name) {
                        all.push((name, value.to_owned()));
                    }
                }
            }
            export.line(at, metadata, message, all);
        }

        fields.shrink();
        message.shrink_to(super::VALUE_BYTES_MAX);
        raw.shrink_to(super::VALUE_BYTES_MAX);
        clean.shrink_to(super::VALUE_BYTES_MAX);
        if out.capacity() > LINE_BYTES_MAX / 4 {
            *out = String::new();
        }
    }
}

/// Whether lines are held in this span until it is known how it went.
fn is_held<S: for<'a> LookupSpan<'a>>(span: &SpanRef<'_, S>) -> bool {
    span.extensions().get::<Held>().is_some()
}

/// Whether a span inside of `outer` has a field of that name.
fn has_inner<S>(context: &Context<'_, S>, event: &Event<'_>, outer: &Id, name: &str) -> bool
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let inner = context.event_scope(event).into_iter().flatten();
    inner.take_while(|span| span.id() != *outer).any(|span| {
        span.extensions().get::<SpanFields>().is_some_and(|SpanFields(fields)| fields.has(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::logging::{Format, LogOptions, dispatch};

    #[test]
    fn an_event_inside_of_an_event_has_room_of_its_own() {
        let (sender, lines) = std::sync::mpsc::channel();
        struct To(std::sync::mpsc::Sender<Vec<u8>>);
        impl std::io::Write for To {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let level = tracing::Level::INFO;
        let options = LogOptions { format: Format::Json, level, ..LogOptions::default() };
        let (dispatch, guard) = dispatch(&options, To(sender)).unwrap();
        SCRATCH.with(|scratch| {
            let _held = scratch.borrow_mut();
            tracing::dispatcher::with_default(&dispatch, || tracing::info!("inner"));
        });
        drop(dispatch);
        drop(guard);
        let text = String::from_utf8(lines.iter().collect::<Vec<_>>().concat()).unwrap();
        assert!(text.contains(r#""message":"inner""#), "{text}");
    }
}
