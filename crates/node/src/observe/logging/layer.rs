//! The layer between tracing and the lines.

use std::cell::RefCell;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::LINE_BYTES_MAX;
use super::fields::{Fields, Recorder};
use super::line::{Line, Style};
use super::sink::Sink;

thread_local! {
    /// Buffers that events of this thread use again and again.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    fields: Fields,
    message: String,
    raw: String,
    line: String,
}

/// Writes one line per event. One of these belongs to one subscriber, because the rendered fields
/// of a span are kept with the span.
pub(super) struct Lines {
    pub(super) style: Style,
    pub(super) sink: Sink,
}

/// The rendered fields of a span.
struct SpanFields(Fields);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        let mut raw = String::new();
        attributes.record(&mut self.recorder(&mut fields, &mut raw));
        if !fields.is_empty() {
            span.extensions_mut().replace(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        // Rendered before the span is locked: a value's `Debug` may log in this very span.
        let mut added = Fields::default();
        let mut raw = String::new();
        values.record(&mut self.recorder(&mut added, &mut raw));
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<SpanFields>() {
            Some(SpanFields(fields)) => fields.absorb(&added),
            None => {
                extensions.replace(SpanFields(added));
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let written = SCRATCH.try_with(|scratch| {
            let mut scratch = scratch.try_borrow_mut().ok()?;
            self.write(event, &context, &mut scratch);
            Some(())
        });
        // The buffers are taken when a field's `Debug` logs while it is being logged, and gone
        // when a thread logs at its very end.
        if !matches!(written, Ok(Some(()))) {
            self.write(event, &context, &mut Scratch::default());
        }
    }
}

impl Lines {
    fn recorder<'a>(&self, fields: &'a mut Fields, raw: &'a mut String) -> Recorder<'a> {
        Recorder { style: self.style, fields, message: None, raw }
    }

    fn write<S>(&self, event: &Event<'_>, context: &Context<'_, S>, scratch: &mut Scratch)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Scratch { fields, message, raw, line: out } = scratch;
        fields.clear();
        message.clear();
        let mut recorder = self.recorder(fields, raw);
        recorder.message = Some(message);
        event.record(&mut recorder);

        let mut line = Line::begin(self.style, out, *event.metadata().level(), message);
        line.fields(fields, |_| false);
        let mut has_logger = fields.has("logger");
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(SpanFields(outer)) = extensions.get() else { continue };
            has_logger |= outer.has("logger");
            // The innermost value of a name is the one that is true for the event.
            line.fields(outer, |name| {
                fields.has(name) || has_inner(context, event, &span.id(), name)
            });
        }
        line.end((!has_logger).then_some(event.metadata().target()));
        self.sink.write_line(out.as_bytes());

        fields.shrink();
        message.shrink_to(super::VALUE_BYTES_MAX);
        raw.shrink_to(super::VALUE_BYTES_MAX);
        if out.capacity() > LINE_BYTES_MAX / 4 {
            *out = String::new();
        }
    }
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
        let options = LogOptions { format: Format::Json, level, filter: None, colour: false };
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
