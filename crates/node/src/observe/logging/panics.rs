//! Panics as lines of the log.
//!
//! What Rust prints of a panic by itself is its text as it is: with line breaks that begin a line of
//! somebody else's choice, what a terminal obeys, and secrets. A capability's text often has a
//! caller's words in it.

use std::backtrace::Backtrace;
use std::io::Write as _;
use std::panic::{Location, PanicHookInfo};
use std::time::{Duration, SystemTime};

use tracing::Level;

use super::fields::{Fields, Recorder, SecretNames};
use super::layer;
use super::line::{Line, Style};
use super::redact::Redactor;
use super::sink::{LogGuard, Sink};

/// How long a thread that panics waits for its line to be written, since its process may be about
/// to abort. A log that nobody reads holds it up no longer.
const WRITTEN_WITHIN: Duration = Duration::from_millis(50);

/// What stands for a payload that is not a text, as `std::panic::panic_any` allows.
const NO_TEXT: &str = "a value that is no text";

/// The variable that asks for backtraces. Source: the documentation of `std::backtrace`; as for
/// Rust's own hook, `0` is as if it were not there.
const BACKTRACE_VARIABLE: &str = "RUST_BACKTRACE";

impl LogGuard {
    /// Makes every panic of this process a line of this log from now on, `Panicked` at `ERROR`, with
    /// `error` (what it says), `location`, `thread` and, if the environment variable
    /// `RUST_BACKTRACE` asks for it, `backtrace`.
    ///
    /// It takes the place of the process's panic hook, so it is for the program's `main` to ask for
    /// and not for a library. A panic is told whatever the log's filter says; where the log has no
    /// room for it any more, because it has been closed or is itself what panicked, the same line
    /// goes to standard error.
    pub fn log_panics(&self) {
        let asked = std::env::var_os(BACKTRACE_VARIABLE);
        let log = PanicLog {
            style: self.style,
            sink: self.sink.clone(),
            redactor: Redactor::new(&self.redact),
            backtraces: asked.is_some_and(|value| value != "0"),
        };
        std::panic::set_hook(Box::new(move |info| log.tell(info)));
    }
}

/// What the hook needs.
struct PanicLog {
    style: Style,
    sink: Sink,
    redactor: Redactor,
    backtraces: bool,
}

/// What a panic's line says.
struct Panicked<'a> {
    text: &'a str,
    location: Option<&'a Location<'a>>,
    thread: Option<&'a str>,
    backtrace: Option<Backtrace>,
}

impl PanicLog {
    fn tell(&self, info: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        self.log(&Panicked {
            text: info.payload_as_str().unwrap_or(NO_TEXT),
            location: info.location(),
            thread: thread.name(),
            backtrace: self.backtraces.then(Backtrace::force_capture),
        });
        self.sink.wait_until_written(WRITTEN_WITHIN);
    }

    fn log(&self, panicked: &Panicked<'_>) {
        // An event has the fields of the request in whose span this happens. It cannot be used from
        // inside of the log, whose locks may be held, and it goes nowhere on a thread that has no
        // subscriber, or whose filter does not want it.
        if self.sink.is_open() && !layer::is_at_work() {
            let before = layer::lines_of_this_thread();
            panicked.as_event();
            if layer::lines_of_this_thread() != before {
                return;
            }
        }
        let line = panicked.line(self.style, &self.redactor);
        if !self.sink.try_write_line(line.as_bytes()) {
            // Nobody is left to tell if this fails too.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

impl Panicked<'_> {
    fn as_event(&self) {
        tracing::error!(
            error = self.text,
            location = self.location.map(tracing::field::display),
            thread = self.thread,
            backtrace = self.backtrace.as_ref().map(tracing::field::display),
            "Panicked"
        );
    }

    /// The same line without tracing: no lock is taken, and no buffer that may be in use.
    fn line(&self, style: Style, redactor: &Redactor) -> String {
        let mut fields = Fields::default();
        let mut recorder = Recorder {
            style,
            redactor,
            secret_names: &mut SecretNames::default(),
            fields: &mut fields,
            message: None,
            raw: &mut String::new(),
            clean: &mut String::new(),
        };
        recorder.text("error", self.text);
        if let Some(location) = self.location {
            recorder.debug("location", &format_args!("{location}"));
        }
        if let Some(thread) = self.thread {
            recorder.text("thread", thread);
        }
        if let Some(backtrace) = &self.backtrace {
            recorder.debug("backtrace", &format_args!("{backtrace}"));
        }
        let mut out = String::new();
        let mut line = Line::begin(style, &mut out, SystemTime::now(), Level::ERROR, "Panicked");
        line.all(&fields);
        line.end(Some(module_path!()));
        out
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde_json::Value;
    use tracing::Dispatch;

    use super::*;
    use crate::observe::logging::tests::Memory;
    use crate::observe::logging::{Format, LogOptions, VALUE_BYTES_MAX, dispatch};

    const LONG: Duration = Duration::from_secs(60);

    /// What `work` writes, given what a hook would have.
    fn text(options: &LogOptions, work: impl FnOnce(&Dispatch, &PanicLog)) -> String {
        let memory = Memory::default();
        let (dispatch, guard) = dispatch(options, memory.clone()).unwrap();
        let log = PanicLog {
            style: guard.style,
            sink: guard.sink.clone(),
            redactor: Redactor::new(&guard.redact),
            backtraces: false,
        };
        work(&dispatch, &log);
        guard.flush(LONG).unwrap();
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    fn panicked(text: &str) -> Panicked<'_> {
        let location = Some(Location::caller());
        Panicked { text, location, thread: Some("a \"thread\"\n"), backtrace: None }
    }

    fn lines(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn whatever_a_panic_says_is_one_line_without_its_secret() {
        let json = LogOptions { redact: vec!["patient".to_owned()], ..LogOptions::default() };
        let pretty = LogOptions { format: Format::Pretty, ..json.clone() };
        let corpus = include_str!("corpus.jsonl").lines();
        let corpus = corpus.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let own = serde_json::json!({"text": "for patient=Ann", "secret": "Ann"});
        for entry in corpus.chain([own]) {
            let (said, secret) = (entry["text"].as_str().unwrap(), entry["secret"].as_str());
            for options in [&json, &pretty] {
                let as_event = |dispatch: &Dispatch, log: &PanicLog| {
                    tracing::dispatcher::with_default(dispatch, || log.log(&panicked(said)));
                };
                let of_its_own = |_: &Dispatch, log: &PanicLog| log.log(&panicked(said));
                for text in [text(options, as_event), text(options, of_its_own)] {
                    assert_eq!(text.matches('\n').count(), 1, "{text}");
                    assert!(!secret.is_some_and(|secret| text.contains(secret)), "{text}");
                    if options.format == Format::Pretty {
                        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
                        continue;
                    }
                    let line = &lines(&text)[0];
                    assert_eq!(
                        (&line["level"], &line["message"]),
                        (&"ERROR".into(), &"Panicked".into())
                    );
                    assert_eq!(line["thread"], "a \"thread\"\n");
                    assert!(line["location"].as_str().unwrap().contains("panics.rs:"), "{line}");
                    if secret.is_none() {
                        assert_eq!(line["error"], said);
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_both_ways() {
        let mega = "é".repeat(1 << 20);
        let text = text(&LogOptions::default(), |dispatch, log| {
            log.log(&panicked(&mega));
            tracing::dispatcher::with_default(dispatch, || log.log(&panicked(&mega)));
        });
        for line in lines(&text) {
            let (shown, rest) = line["error"].as_str().unwrap().split_once('…').unwrap();
            assert!(shown.len() <= VALUE_BYTES_MAX && rest == " (2097152 bytes)", "{rest}");
        }
    }

    #[test]
    fn a_panic_has_the_fields_of_the_request_it_happens_in() {
        let text = text(&LogOptions::default(), |dispatch, log| {
            tracing::dispatcher::with_default(dispatch, || {
                let _span = tracing::info_span!("request", trace_id = "t-1").entered();
                log.log(&panicked("no"));
            });
        });
        assert_eq!(lines(&text)[0]["trace_id"], "t-1");
    }

    #[test]
    fn a_panic_inside_of_the_log_is_told_once() {
        /// Comes to the hook while it is shown, as a `Debug` that panics does.
        struct Panics<'a>(&'a PanicLog);
        impl fmt::Debug for Panics<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                assert!(layer::is_at_work());
                self.0.log(&panicked("inside"));
                f.write_str("shown")
            }
        }
        let text = text(&LogOptions::default(), |dispatch, log| {
            tracing::dispatcher::with_default(dispatch, || {
                tracing::info!(value = ?Panics(log), "outside");
                assert!(!layer::is_at_work());
            });
        });
        let said = lines(&text);
        assert_eq!(said.len(), 2, "{text}");
        assert_eq!((&said[0]["error"], &said[1]["value"]), (&"inside".into(), &"shown".into()));
    }

    #[test]
    fn a_panic_is_told_whatever_the_filter_says() {
        let off = LogOptions { filter: Some("off".to_owned()), ..LogOptions::default() };
        let text = text(&off, |dispatch, log| {
            tracing::dispatcher::with_default(dispatch, || {
                tracing::error!("not told");
                log.log(&panicked("told"));
            });
        });
        let said = lines(&text);
        assert_eq!((said.len(), &said[0]["error"]), (1, &"told".into()), "{text}");
    }

    #[test]
    fn a_backtrace_is_one_field() {
        let text = text(&LogOptions::default(), |_, log| {
            log.log(&Panicked { backtrace: Some(Backtrace::force_capture()), ..panicked("no") });
        });
        let line = &lines(&text)[0];
        assert!(line["backtrace"].as_str().unwrap().contains('\n'), "{line}");
    }
}
