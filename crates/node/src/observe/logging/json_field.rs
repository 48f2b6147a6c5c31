//! A field that is written as JSON instead of as text.

use std::cell::Cell;
use std::fmt::{self, Debug, Write as _};
use std::io;

use serde::Serialize;
use tracing::field::DebugValue;

thread_local! {
    /// How many bytes the last [`JsonField`] on this thread wrote.
    ///
    /// This is how a value is known to be JSON: by the field having written all of it. A mark in
    /// the text could be forged by whoever chooses the text.
    static WRITTEN: Cell<usize> = const { Cell::new(0) };
}

/// A value that the JSON format writes as JSON: `info!(operations = json_field(&operations), …)`
/// gives `"operations":["analyze","sentiment"]`. The pretty format, other subscribers, and JSON
/// longer than [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX) show its text.
pub fn json_field<T: Serialize>(value: &T) -> DebugValue<JsonField<'_, T>> {
    tracing::field::debug(JsonField(value))
}

/// What [`json_field`] wraps.
pub struct JsonField<'a, T>(&'a T);

impl<T: Serialize> Debug for JsonField<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut into = Into { f, written: 0 };
        match serde_json::to_writer(&mut into, self.0) {
            Ok(()) => {
                WRITTEN.set(into.written);
                Ok(())
            }
            Err(error) if error.is_io() => Err(fmt::Error),
            Err(error) => write!(into.f, " (not JSON: {error})"),
        }
    }
}

/// Formats `value` to the end of `out` and says whether it is JSON text from a [`JsonField`].
pub(super) fn format(out: &mut super::fields::Capped<'_>, value: &dyn Debug) -> bool {
    WRITTEN.set(0);
    // An error is the cap's or the value's own; what came before it is in `out` either way.
    let whole = write!(out, "{value:?}").is_ok();
    whole && out.written() > 0 && WRITTEN.get() == out.written()
}

struct Into<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    written: usize,
}

impl io::Write for Into<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.f.write_str(text).map_err(io::Error::other)?;
        self.written += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
