//! What a handler that is run again need not ask again.

use convoke_model::{Message, Role, TaskState};

use crate::State;

/// The answers that earlier attempts at a task were given and that no checkpoint stands for yet.
///
/// A handler that is run again, after a restart or after a failure, begins at its beginning and
/// repeats the questions of its predecessor. Its owner has answered them. So each question that it
/// repeats gets the answer that came then, in the order of the conversation and each answer once; a
/// question that it did not ask before, or asks once more, is put. An answer from before the
/// [checkpoint](convoke_model::Checkpoint) is in what the checkpoint says, and is not given.
///
/// It belongs to one attempt, like the handler's own memory: whoever runs a handler makes one from
/// the state that it begins in, asks it before each [`crate::Event::HandlerAsked`], and drops it with
/// the handler.
#[derive(Debug, Clone)]
pub struct EarlierAnswers {
    /// Where in the task's history the next one is looked for. A history only grows.
    next: usize,
    /// Where those end that were asked for by earlier attempts.
    end: usize,
}

impl EarlierAnswers {
    /// Those of an attempt that begins in `state`.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let heard = state.work().checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.heard);
        let Some(task) = state.task() else { return Self { next: 0, end: 0 } };
        // The question that is open joins the history with its answer, which may come before the
        // handler is back at it.
        let open = if task.status.state.is_interrupted() { 2 } else { 0 };
        Self { next: usize::try_from(heard).unwrap_or(usize::MAX), end: task.history.len() + open }
    }

    /// The answer to `question`, which the handler asks in `state`, if an earlier attempt got one.
    /// Without one the question has to be put, by an event.
    pub fn take(&mut self, state: &State, question: &Message) -> Option<Message> {
        let task = state.task()?;
        if task.status.state.is_interrupted() {
            // What is answered from here on is this attempt's own question.
            self.end = self.end.min(task.history.len());
        }
        let earlier = task.history.get(self.next..self.end.min(task.history.len()))?;
        let place = earlier.windows(2).position(|pair| {
            let [asked, answer] = pair else { return false };
            answer.role == Role::User && is_same_question(asked, question)
        })?;
        self.next += place + 2;
        earlier.get(place + 1).cloned()
    }
}

/// Whether two questions ask the same, for the same kind of answer: an agent says in the metadata
/// what an answer has to be.
fn is_same_question(one: &Message, other: &Message) -> bool {
    one.role == other.role && one.parts == other.parts && one.metadata == other.metadata
}

/// Whether the task waits, in `wanted`, for the answer to just this question.
pub(crate) fn is_open(state: &State, wanted: TaskState, question: &Message) -> bool {
    state.task().is_some_and(|task| {
        let asked = task.status.message.as_ref();
        task.status.state == wanted && asked.is_some_and(|asked| is_same_question(asked, question))
    })
}

#[cfg(test)]
mod tests {
    use convoke_model::{
        CapabilityName, Content, ContextId, Json, MessageId, Part, TaskId, Terms, UnixMillis,
    };

    use super::*;
    use crate::{Effects, Event, decide};

    fn said(role: Role, text: &str) -> Message {
        let parts = vec![Part::new(Content::Text(text.to_owned()))];
        Message::new(MessageId::parse("said").unwrap(), role, parts)
    }

    /// What is written as `?question`, `!answer`, `#` for a checkpoint, and `~` for a question that
    /// was taken back.
    fn tell(state: &mut State, story: &str) {
        for word in story.split_whitespace() {
            let event = match word.split_at(1) {
                ("?", text) => Event::HandlerAsked(said(Role::Agent, text)),
                ("!", text) => Event::Message(said(Role::User, text)),
                ("#", _) => Event::HandlerCheckpoint(Json::empty_object()),
                _ => Event::HandlerResumed,
            };
            decide(state, event, UnixMillis(1), &mut Effects::new()).unwrap();
        }
    }

    /// Tells `before` of one attempt, and lets the next one ask: what it is given at once for each
    /// question, or `-` where the question is put. `between` is told after its begin.
    fn check(before: &str, between: &str, questions: &str, expected: &str) {
        let mut state = State::new(
            TaskId::parse("task").unwrap(),
            ContextId::parse("context").unwrap(),
            CapabilityName::parse("work").unwrap(),
            Terms::default(),
        );
        for event in [Event::Submit(said(Role::User, "a")), Event::HandlerStarted] {
            decide(&mut state, event, UnixMillis(1), &mut Effects::new()).unwrap();
        }
        tell(&mut state, before);
        let mut earlier = EarlierAnswers::of(&state);
        tell(&mut state, between);
        let mut given = Vec::new();
        for question in questions.split_whitespace() {
            match earlier.take(&state, &said(Role::Agent, question)) {
                Some(answer) => given.push(format!("{:?}", answer.parts[0].content)),
                None => {
                    given.push("-".to_owned());
                    tell(&mut state, &format!("?{question} !new"));
                }
            }
        }
        let expected: Vec<String> = expected
            .split_whitespace()
            .map(|word| match word {
                "-" => "-".to_owned(),
                text => format!("{:?}", Content::Text(text.to_owned())),
            })
            .collect();
        assert_eq!(given, expected, "{before} / {between} / {questions}");
    }

    #[test]
    fn what_was_answered_is_not_asked_again() {
        check("", "", "a a", "- -");
        check("?a !1", "", "a a", "1 -");
        check("?a !1 ?b !2", "", "a b c", "1 2 -");
        check("?a !1 ?a !2", "", "a a a", "1 2 -");
        check("?a !1 ?b !2", "", "b a", "2 -");
        // What nobody answered is put again, and what another question was answered is not its.
        check("?a ~ ?b !2", "", "a b", "- 2");
        check("?a ?b !2", "", "a b", "- 2");
    }

    #[test]
    fn a_checkpoint_stands_for_the_answers_before_it() {
        check("?a !1 #", "", "a", "-");
        check("?a !1 # ?a !2", "", "a a", "2 -");
        check("?a # !1", "", "a", "1");
    }

    #[test]
    fn a_question_that_was_open_is_answered_once() {
        // The answer comes before the handler is back at its question, or after it.
        check("?a", "!1", "a a", "1 -");
        check("?a", "", "a a", "- -");
        check("?a !1 ?b", "!2", "a b b", "1 2 -");
        check("?a !1 ?b", "", "a b b", "1 - -");
        check("?b", "", "a b", "- -");
    }
}
