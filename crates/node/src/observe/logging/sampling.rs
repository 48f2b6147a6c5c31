//! Leaving out the lines of requests that went well.

use std::sync::{Mutex, PoisonError};

use super::sink::Sink;
use crate::observe::trace::is_below;

/// Most bytes of lines that wait for the end of one request; further ones are left out, whatever
/// comes of it.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Which requests' lines are written in any case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampling {
    rate: f64,
}

/// The lines of a request of which it is not known yet how it goes. They go with its span.
pub(super) struct Held(Mutex<Option<Vec<u8>>>);

impl Sampling {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate }
    }

    /// Whether any lines are left out.
    pub(super) fn is_on(self) -> bool {
        self.rate < 1.0
    }

    /// Room for the lines of a request of the trace with this number, a JSON text, if they are to
    /// wait.
    pub(super) fn hold(self, trace_id: &str) -> Option<Held> {
        if !self.is_on() {
            return None;
        }
        let number = u128::from_str_radix(trace_id.trim_matches('"'), 16).ok()?;
        (!is_below(number, self.rate)).then(|| Held(Mutex::new(Some(Vec::new()))))
    }
}

impl Held {
    /// Keeps `line`; or, if something went wrong now or before, writes it and what was kept.
    pub(super) fn take(&self, line: &[u8], went_wrong: bool, sink: &Sink) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(lines) if went_wrong => {
                sink.write_line(lines, false);
                *held = None;
                sink.write_line(line, true);
            }
            Some(lines) if lines.len() + line.len() <= HELD_BYTES_MAX => {
                lines.extend_from_slice(line);
            }
            Some(_) => {}
            None => sink.write_line(line, went_wrong),
        }
    }
}
