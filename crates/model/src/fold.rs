//! How a task follows from its events: the one rule that the engine, which makes events, and every
//! journal, which keeps them, share.

use crate::{
    ArtifactId, Content, ContextId, Part, Task, TaskEvent, TaskId, TaskState, TaskStatus, limits,
};

/// Longest text, in bytes, that pieces of text are joined to. Written as JSON a byte becomes six at
/// most, and readers take a string of [`limits::JSON_STRING_BYTES_MAX`].
const JOINED_BYTES_MAX: usize = limits::JSON_STRING_BYTES_MAX / 8;

/// Why an event cannot follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A task begins with [`TaskEvent::Submitted`].
    #[error("the first event of a task is not its submission")]
    NotSubmitted,
    /// A task is submitted once.
    #[error("a task is submitted only once")]
    SubmittedAgain,
    /// A task that has ended has no more events.
    #[error("the task has ended and takes no more events")]
    Ended,
    /// A piece was added to an artifact that does not exist.
    #[error("artifact `{0}` does not exist, so nothing can be added to it")]
    UnknownArtifact(ArtifactId),
}

impl Task {
    /// The task that `first` makes.
    ///
    /// # Errors
    ///
    /// [`EventError::NotSubmitted`] if `first` is another event than the submission.
    pub fn begin(id: TaskId, context_id: ContextId, first: TaskEvent) -> Result<Self, EventError> {
        let TaskEvent::Submitted { message, at } = first else {
            return Err(EventError::NotSubmitted);
        };
        let status = TaskStatus { state: TaskState::Submitted, message: None, timestamp: at };
        let history = vec![message];
        Ok(Self { id, context_id, status, artifacts: Vec::new(), history, metadata: None })
    }

    /// Changes the task as `event` says. On an error nothing has changed.
    ///
    /// # Errors
    ///
    /// [`EventError`] if `event` cannot follow the events that made the task.
    pub fn apply(&mut self, event: TaskEvent) -> Result<(), EventError> {
        self.admits(std::slice::from_ref(&event))?;
        match event {
            // `admits` lets no second submission through.
            TaskEvent::Submitted { .. } => {}
            TaskEvent::Message(message) => self.history.push(message),
            TaskEvent::Status(status) => {
                let before = std::mem::replace(&mut self.status, status);
                // A question is part of the conversation; what was said of progress is not.
                if before.state.is_interrupted() {
                    self.history.extend(before.message);
                }
            }
            TaskEvent::Artifact { artifact, append, last: _ } => {
                let id = &artifact.artifact_id;
                match self.artifacts.iter_mut().find(|known| known.artifact_id == *id) {
                    Some(known) if append => add(&mut known.parts, artifact.parts),
                    Some(known) => *known = artifact,
                    None => self.artifacts.push(artifact),
                }
            }
        }
        Ok(())
    }

    /// Whether all of `events`, in their order, can follow the events that made the task. A journal
    /// asks before it changes anything, so that it takes all of them or none.
    ///
    /// # Errors
    ///
    /// [`EventError`] about the first that cannot.
    pub fn admits(&self, events: &[TaskEvent]) -> Result<(), EventError> {
        self.status
            .state
            .admits(events, |id| self.artifacts.iter().any(|known| known.artifact_id == *id))
    }
}

impl TaskState {
    /// As [`Task::admits`], for a task of which no more is at hand than its state and a way to ask
    /// whether it has an artifact, which is asked of pieces alone.
    ///
    /// # Errors
    ///
    /// [`EventError`] about the first that cannot.
    pub fn admits(
        self,
        events: &[TaskEvent],
        mut has_artifact: impl FnMut(&ArtifactId) -> bool,
    ) -> Result<(), EventError> {
        let mut ended = self.is_terminal();
        for (index, event) in events.iter().enumerate() {
            if ended {
                return Err(EventError::Ended);
            }
            match event {
                TaskEvent::Submitted { .. } => return Err(EventError::SubmittedAgain),
                TaskEvent::Message(_) => {}
                TaskEvent::Status(status) if status.state == Self::Submitted => {
                    return Err(EventError::SubmittedAgain);
                }
                TaskEvent::Status(status) => ended = status.state.is_terminal(),
                TaskEvent::Artifact { artifact, append: true, .. } => {
                    let id = &artifact.artifact_id;
                    if !events[..index].iter().any(|earlier| makes(earlier, id))
                        && !has_artifact(id)
                    {
                        return Err(EventError::UnknownArtifact(id.clone()));
                    }
                }
                TaskEvent::Artifact { append: false, .. } => {}
            }
        }
        Ok(())
    }
}

/// Adds `pieces` to `parts`. Plain text continues the plain text before it, so that an artifact
/// which came in ten thousand pieces is kept, and read, as one.
fn add(parts: &mut Vec<Part>, pieces: Vec<Part>) {
    for piece in pieces {
        let before = parts.last_mut().filter(|before| is_plain(before) && is_plain(&piece));
        match (before.map(|before| &mut before.content), &piece.content) {
            (Some(Content::Text(text)), Content::Text(more))
                if text.len() + more.len() <= JOINED_BYTES_MAX =>
            {
                text.push_str(more);
            }
            _ => parts.push(piece),
        }
    }
}

/// Whether `part` is text and nothing else.
fn is_plain(part: &Part) -> bool {
    let Part { content, metadata, filename, media_type, unknown } = part;
    matches!(content, Content::Text(_))
        && metadata.is_none()
        && filename.is_none()
        && media_type.is_none()
        && unknown.is_empty()
}

fn makes(event: &TaskEvent, id: &ArtifactId) -> bool {
    matches!(event, TaskEvent::Artifact { artifact, .. } if artifact.artifact_id == *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Artifact, Content, Message, MessageId, Part, Role, UnixMillis};

    fn message(id: &str) -> Message {
        let parts = vec![Part::new(Content::Text(id.to_owned()))];
        Message::new(MessageId::parse(id).unwrap(), Role::User, parts)
    }

    fn submitted() -> TaskEvent {
        TaskEvent::Submitted { message: message("m"), at: UnixMillis(1) }
    }

    fn status(state: TaskState) -> TaskEvent {
        TaskEvent::Status(TaskStatus { state, message: None, timestamp: UnixMillis(2) })
    }

    fn artifact(id: &str, text: &str, append: bool) -> TaskEvent {
        let artifact = Artifact {
            artifact_id: ArtifactId::parse(id).unwrap(),
            name: None,
            description: None,
            parts: vec![Part::new(Content::Text(text.to_owned()))],
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        };
        TaskEvent::Artifact { artifact, append, last: true }
    }

    fn task() -> Task {
        let id = TaskId::parse("t").unwrap();
        Task::begin(id, ContextId::parse("c").unwrap(), submitted()).unwrap()
    }

    /// Applies `events` to a new task, all at once and one by one, and compares what is refused.
    fn check(events: &[TaskEvent], expected: Result<(TaskState, &[&str]), EventError>) {
        let mut folded = task();
        assert_eq!(folded.admits(events).err(), expected.clone().err(), "{events:?}");
        let result = events.iter().cloned().try_for_each(|event| folded.apply(event));
        let texts: Vec<String> = folded
            .artifacts
            .iter()
            .map(|artifact| artifact.parts.iter().map(|part| format!("{:?}", part.content)))
            .map(|contents| contents.collect::<String>())
            .collect();
        match expected {
            Ok((state, artifacts)) => {
                assert_eq!(result, Ok(()));
                assert_eq!(folded.status.state, state);
                let expected: Vec<String> = artifacts
                    .iter()
                    .map(|texts| texts.split(' ').map(|t| format!("Text({t:?})")).collect())
                    .collect();
                assert_eq!(texts, expected);
            }
            Err(error) => assert_eq!(result, Err(error)),
        }
    }

    #[test]
    fn a_task_follows_from_its_events() {
        use TaskState::{Completed, Submitted, Working};
        check(&[], Ok((Submitted, &[])));
        check(&[status(Working), TaskEvent::Message(message("n"))], Ok((Working, &[])));
        check(
            &[
                artifact("a", "1", false),
                artifact("b", "2", false),
                artifact("a", "3", true),
                status(Completed),
            ],
            Ok((Completed, &["13", "2"])),
        );
        check(&[artifact("a", "1", false), artifact("a", "2", false)], Ok((Submitted, &["2"])));
    }

    #[test]
    fn plain_texts_are_joined_up_to_a_length_and_other_parts_are_not() {
        let plain = |text: &str| Part::new(Content::Text(text.to_owned()));
        let named = Part { filename: Some("a.txt".into()), ..plain("2") };
        let mut parts = vec![plain("1")];
        add(&mut parts, vec![plain("2"), named.clone(), plain("3"), plain(""), plain("4")]);
        assert_eq!(parts, [plain("12"), named, plain("34")]);
        let long = "x".repeat(JOINED_BYTES_MAX - 1);
        add(&mut parts, vec![plain(&long), plain("5"), plain("6")]);
        let lengths: Vec<_> =
            parts.iter().map(|part| format!("{:?}", part.content).len()).collect();
        assert_eq!((parts.len(), &parts[4]), (5, &plain("6")), "{lengths:?}");
    }

    #[test]
    fn a_question_joins_the_history_when_the_task_goes_on() {
        use TaskState::{InputRequired, Working};
        let says = |state, id| {
            let message = Some(message(id));
            TaskEvent::Status(TaskStatus { state, message, timestamp: UnixMillis(2) })
        };
        let mut task = task();
        for event in [
            says(Working, "progress"),
            says(InputRequired, "question"),
            status(Working),
            TaskEvent::Message(message("answer")),
            status(TaskState::Completed),
        ] {
            task.apply(event).unwrap();
        }
        let history: Vec<_> = task.history.iter().map(|said| said.message_id.as_str()).collect();
        assert_eq!(history, ["m", "question", "answer"]);
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        use TaskState::{Completed, Failed, Submitted};
        check(&[submitted()], Err(EventError::SubmittedAgain));
        check(&[status(Submitted)], Err(EventError::SubmittedAgain));
        check(&[status(Completed), status(Failed)], Err(EventError::Ended));
        check(&[status(Completed), TaskEvent::Message(message("n"))], Err(EventError::Ended));
        let unknown = EventError::UnknownArtifact(ArtifactId::parse("b").unwrap());
        check(&[artifact("a", "1", false), artifact("b", "2", true)], Err(unknown));
        let id = TaskId::parse("t").unwrap();
        let begun = Task::begin(id, ContextId::parse("c").unwrap(), status(Completed));
        assert_eq!(begun, Err(EventError::NotSubmitted));
    }
}
