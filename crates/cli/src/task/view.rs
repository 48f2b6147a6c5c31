//! Events as they are shown: lines of JSON for programs, words and texts for people.

use std::io::{IsTerminal, Write};

use convoke::Json;
use convoke::task::{Event, StreamItem};
use convoke_a2a::client::event_json;
use convoke_a2a::headers::CAPABILITY_EXTENSION;
use convoke_model::{Artifact, Content, Message, Part, TaskEvent, TaskState, TaskStatus};
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{Output, word_of};
use crate::exit::Failure;
use crate::paint::{self, Paint, plain, say};
use crate::progress;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// One line of JSON each.
    Lines,
    /// What a person wants to see of them, as it comes.
    Live,
    /// Not, but for what is waited for.
    Quiet,
}

impl Look {
    /// For standard output as it is.
    pub(super) fn choose(json: bool) -> Self {
        if json || !std::io::stdout().is_terminal() { Self::Lines } else { Self::Live }
    }
}

/// Shows the events of one task.
pub(super) struct View {
    look: Look,
    paint: Paint,
    /// Whether artifacts are saved, so that nobody has to be told how.
    saves: bool,
    begun: Instant,
    /// Whether the line of text that was written last has not ended.
    open: bool,
    /// Whether standard error is a terminal, on which one line can be written again and again.
    in_place: bool,
}

impl View {
    pub(super) fn new(look: Look, paint: Paint, saves: bool) -> Self {
        let in_place = std::io::stderr().is_terminal();
        Self { look, paint, saves, begun: Instant::now(), open: false, in_place }
    }

    /// Whether words are for people here.
    pub(super) fn talks(&self) -> bool {
        self.look != Look::Lines
    }

    pub(super) fn show(&mut self, event: &Event, reset: bool) -> Result<(), Failure> {
        if self.look == Look::Lines {
            return print_line(&event_json(&event.item, event.cursor, reset));
        }
        match &event.item {
            StreamItem::Task(task) => {
                if self.look == Look::Live {
                    let id = plain(task.id.as_str());
                    let what = if reset { "events were lost; this is task" } else { "task" };
                    self.words(format!("{} {id}", self.paint.dim(what)));
                }
                self.status(&task.status);
                for artifact in &task.artifacts {
                    self.artifact(artifact, false)?;
                }
            }
            StreamItem::Message(message) => self.parts(&message.parts)?,
            StreamItem::Update { said: Some(_), .. } => {}
            StreamItem::Update { event, .. } => match event {
                TaskEvent::Status(status) => self.status(status),
                TaskEvent::Artifact { artifact, append, last } => {
                    self.artifact(artifact, *append)?;
                    if *last {
                        self.close();
                    }
                }
                TaskEvent::Submitted { .. } | TaskEvent::Message(_) => {}
            },
        }
        Ok(())
    }

    /// Ends the line of text that is open, so that something else can be written.
    pub(super) fn close(&mut self) {
        if self.open {
            self.open = false;
            progress::hold(false);
            let mut stdout = std::io::stdout().lock();
            // A reader who has gone away has seen enough.
            let _gone = stdout.write_all(b"\n").and_then(|()| stdout.flush());
        }
    }

    /// The last word, with how long it took.
    pub(super) fn end(&mut self, status: Option<&TaskStatus>) {
        self.close();
        if let (Look::Live, Some(status)) = (self.look, status) {
            let word = word_of(status.state);
            let word = match status.state {
                TaskState::Completed => self.paint.good(&word),
                state if state.is_interrupted() => self.paint.warn(&word),
                _ => self.paint.bad(&word),
            };
            say(format!("{word} after {:.1} s", self.begun.elapsed().as_secs_f64()));
        }
    }

    fn status(&mut self, status: &TaskStatus) {
        let line = status_line(status);
        if self.in_place {
            progress::label(format!("the task: {line}"));
        } else if self.look == Look::Live && !status.state.is_terminal() {
            self.words(line);
        }
    }

    fn artifact(&mut self, artifact: &Artifact, append: bool) -> Result<(), Failure> {
        if self.look == Look::Quiet {
            return Ok(());
        }
        if !append && let Some(name) = &artifact.name {
            self.words(self.paint.dim(&format!("{}:", plain(name))));
        }
        self.parts(&artifact.parts)
    }

    fn parts(&mut self, parts: &[Part]) -> Result<(), Failure> {
        if self.look == Look::Quiet {
            return Ok(());
        }
        for part in parts {
            match &part.content {
                Content::Text(text) => self.text(text)?,
                Content::Data(data) => {
                    self.close();
                    paint::result(data, Output { json: false, pretty: true })?;
                }
                Content::Raw(base64) => {
                    let bytes = base64.trim_end_matches('=').len() * 3 / 4;
                    let media = part.media_type.as_deref().unwrap_or("unknown type");
                    let how = if self.saves { "" } else { "; --out DIR saves them" };
                    self.words(format!("{bytes} bytes of {}{how}", plain(media)));
                }
                Content::Url(url) => self.words(format!("to be found at {}", plain(url))),
            }
        }
        Ok(())
    }

    fn words(&mut self, line: String) {
        self.close();
        say(line);
    }

    /// Writes text as it comes. While its line has not ended, nothing else may stand on that line.
    fn text(&mut self, text: &str) -> Result<(), Failure> {
        let text = paint::plain_lines(text);
        let Some(last) = text.chars().next_back() else { return Ok(()) };
        progress::wipe();
        self.open = last != '\n';
        progress::hold(self.open);
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::of_stdout(&error))
    }
}

/// Prints a value on one line, as it came.
pub(super) fn print_line(json: &Json) -> Result<(), Failure> {
    let line = Output { json: true, pretty: false };
    if !json.get().contains(['\n', '\r']) {
        return paint::result(json, line);
    }
    // Between values, where line breaks can stand, a space means the same.
    let text = json.get().replace(['\n', '\r'], " ");
    paint::result(&Json::from_checked(&text), line)
}

/// A status in words: `working, reading (50 %)`.
fn status_line(status: &TaskStatus) -> String {
    let mut line = word_of(status.state);
    if let Some(said) = said(status) {
        line.push_str(", ");
        line.push_str(&said);
    }
    if let Some(share) = status.message.as_ref().and_then(share) {
        line.push_str(&format!(" ({:.0} %)", share * 100.0));
    }
    line
}

/// What the agent says of the status, on one line and fit for a terminal.
pub(super) fn said(status: &TaskStatus) -> Option<String> {
    const SHOWN_MAX: usize = 200;
    let texts = status.message.as_ref()?.parts.iter().filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let text = texts.collect::<Vec<_>>().join(" ");
    let mut shown: String = plain(&text).chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() && shown.chars().count() == SHOWN_MAX {
        shown.push('…');
    }
    (!shown.trim().is_empty()).then_some(shown)
}

/// How much of the work is done, if the message says so as agents of ours do.
fn share(message: &Message) -> Option<f64> {
    let metadata: Value = message.metadata.as_ref()?.to().ok()?;
    let share = metadata.get(CAPABILITY_EXTENSION)?.get("progress")?.as_f64()?;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use convoke::UnixMillis;
    use convoke_model::{MessageId, Role};

    use super::*;

    fn status(state: TaskState, text: Option<&str>, metadata: Option<&str>) -> TaskStatus {
        let message = text.map(|text| {
            let part = Part::new(Content::Text(text.into()));
            let mut message = Message::new(MessageId::parse("m").unwrap(), Role::Agent, vec![part]);
            message.metadata = metadata.map(|text| Json::parse(text).unwrap());
            message
        });
        TaskStatus { state, message, timestamp: UnixMillis(0) }
    }

    #[test]
    fn a_status_is_one_line_of_words() {
        let check = |text: Option<&str>, metadata: Option<&str>, expected: &str| {
            let status = status(TaskState::Working, text, metadata);
            assert_eq!(status_line(&status), expected);
        };
        check(None, None, "working");
        check(Some("reading\u{1b}[2J\nit"), None, "working, reading\u{fffd}[2J it");
        let half = r#"{"urn:convoke:ext:capability:v1":{"progress":0.5}}"#;
        check(Some("reading"), Some(half), "working, reading (50 %)");
        let wrong = r#"{"urn:convoke:ext:capability:v1":{"progress":7}}"#;
        check(Some("reading"), Some(wrong), "working, reading");
        let asks = status(TaskState::InputRequired, Some(" "), None);
        assert_eq!(status_line(&asks), "input-required");
        let long = said(&status(TaskState::Failed, Some(&"x".repeat(500)), None)).unwrap();
        assert_eq!(long.chars().count(), 201);
    }
}
