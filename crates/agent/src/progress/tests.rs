use std::sync::{Arc, Mutex};

use convoke_model::{Content, FaultCode, Json, MessageId, Part, Role, limits};
use serde_json::json;

use super::*;
use crate::ContextParts;
use crate::call::tests::parts;
use crate::host::tests::Nowhere;

/// Keeps what is said and answers every question alike.
#[derive(Default)]
struct Notes {
    said: Mutex<Vec<Output>>,
    asked: Mutex<Vec<Question>>,
    kept: Mutex<Vec<Json>>,
    answer: Option<Message>,
}

impl Outlet for Notes {
    fn emit(&self, output: Output) -> BoxFuture<'_, Result<(), OutputError>> {
        self.said.lock().unwrap().push(output);
        Box::pin(std::future::ready(Ok(())))
    }

    fn leave(&self, output: Output) {
        self.said.lock().unwrap().push(output);
    }

    fn checkpoint(&self, value: Json) -> BoxFuture<'_, Result<(), OutputError>> {
        self.kept.lock().unwrap().push(value);
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Message, AskError>> {
        self.asked.lock().unwrap().push(question);
        let answer = self.answer.clone().ok_or(AskError::Busy);
        Box::pin(std::future::ready(answer))
    }
}

fn context(notes: &Arc<Notes>) -> Context {
    let outlet = Some(Arc::clone(notes) as Arc<dyn Outlet>);
    Context::new(ContextParts { outlet, ..parts(Arc::new(Nowhere)) })
}

fn ephemeral() -> Context {
    Context::new(parts(Arc::new(Nowhere)))
}

fn message(content: Content) -> Message {
    Message::new(MessageId::parse("m").unwrap(), Role::User, vec![Part::new(content)])
}

/// Each piece as `content append last`.
fn pieces(notes: &Notes) -> Vec<String> {
    let shown = |output: &Output| match output {
        Output::Artifact { artifact, append, last } => {
            assert_eq!((artifact.artifact_id.as_str(), artifact.parts.len()), ("a", 1));
            let content = match &artifact.parts[0].content {
                Content::Text(text) | Content::Raw(text) | Content::Url(text) => text.as_str(),
                Content::Data(json) => json.get(),
            };
            format!("{content} {append} {last}")
        }
        Output::Progress { .. } => panic!("{output:?}"),
    };
    notes.said.lock().unwrap().iter().map(shown).collect()
}

#[tokio::test]
async fn progress_has_words_and_a_share() {
    let notes = Arc::new(Notes::default());
    let context = context(&notes);
    for (given, kept) in
        [(0.5, Some(0.5)), (-1.0, Some(0.0)), (f64::INFINITY, Some(1.0)), (f64::NAN, None)]
    {
        context.progress("on it").fraction(given).await.unwrap();
        let said = notes.said.lock().unwrap().pop().unwrap();
        assert_eq!(said, Output::Progress { text: "on it".into(), fraction: kept });
    }
    let long = "x".repeat(PIECE_BYTES_MAX + 1);
    let refused = context.progress(long).await;
    assert_eq!(refused, Err(OutputError::TooLarge { bytes: PIECE_BYTES_MAX + 1 }));
    assert!(notes.said.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_artifact_goes_out_in_pieces_and_its_last_one_says_so() {
    let notes = Arc::new(Notes::default());
    let mut writer = context(&notes).artifact("a");
    writer.text("1").await.unwrap();
    assert_eq!(pieces(&notes), ["1 false false"]);
    writer.data(json!({"n": 2})).await.unwrap();
    assert_eq!(pieces(&notes).len(), 1, "data may be the last");
    writer.bytes(b"3", "text/plain").await.unwrap();
    writer.finish().await.unwrap();
    let expected = ["1 false false", r#"{"n":2} true false"#, "Mw== true true"];
    assert_eq!(pieces(&notes), expected);

    notes.said.lock().unwrap().clear();
    let mut writer = context(&notes).artifact("a");
    writer.text("1").await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(pieces(&notes), ["1 false false", " true true"]);

    notes.said.lock().unwrap().clear();
    let mut writer = context(&notes).artifact("a");
    writer.data(1).await.unwrap();
    drop(writer);
    assert_eq!(pieces(&notes), ["1 false false"], "nothing is lost");

    notes.said.lock().unwrap().clear();
    context(&notes).artifact("a").finish().await.unwrap();
    assert_eq!(pieces(&notes), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_an_artifact_is_refused() {
    let notes = Arc::new(Notes::default());
    let mut unnamed = context(&notes).artifact("");
    assert_eq!(unnamed.text("1").await, Err(OutputError::Name(IdError::Empty)));
    assert_eq!(unnamed.data(1).await, Err(OutputError::Name(IdError::Empty)));
    let mut writer = context(&notes).artifact("a");
    let large = vec![0; PIECE_BYTES_MAX];
    assert!(matches!(writer.bytes(&large, "x").await, Err(OutputError::TooLarge { .. })));
    let keys = std::collections::HashMap::from([(vec![1], 1)]);
    assert!(matches!(writer.data(keys).await, Err(OutputError::Json(_))));
    drop((unnamed, writer));
    assert!(notes.said.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_ephemeral_call_is_seen_by_nobody_before_its_end() {
    let context = ephemeral();
    assert_eq!(context.progress("on it").await, Ok(()));
    assert_eq!(context.artifact("a").text("1").await, Err(OutputError::Ephemeral));
    assert_eq!(context.artifact("a").data(1).await, Err(OutputError::Ephemeral));
    assert_eq!(context.ask("what?").await, Err(AskError::Ephemeral));
    assert_eq!(context.authorization("sign in").await, Err(AskError::Ephemeral));
    assert_eq!(context.checkpoint(&1).await, Err(OutputError::NoCheckpoint));
}

#[tokio::test]
async fn an_answer_is_read_as_what_the_handler_wants() {
    let answer = |content| Arc::new(Notes { answer: Some(message(content)), ..Notes::default() });
    let text = answer(Content::Text("red".into()));
    assert_eq!(context(&text).ask("which?").await, Ok(message(Content::Text("red".into()))));
    assert_eq!(context(&text).ask("which?").text().await.unwrap(), "red");
    assert_eq!(context(&text).ask("which?").json().await.unwrap().get(), "\"red\"");
    let schemas: Vec<_> = text
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|question| question.schema.as_ref().map(|schema| schema.json().get().to_owned()))
        .collect();
    assert_eq!(schemas, [None, Some(r#"{"type":"string"}"#.into()), Some("{}".into())]);

    let data = answer(Content::Data(Json::parse("[1, 2]").unwrap()));
    assert_eq!(context(&data).ask("which?").into::<Vec<u8>>().await, Ok(vec![1, 2]));
    let question = data.asked.lock().unwrap().pop().unwrap();
    assert!(question.schema.unwrap().json().get().contains("array"));
    let shape = context(&data).ask("which?").schema(json!({})).text().await;
    assert!(matches!(shape, Err(AskError::Shape(_))), "{shape:?}");
    let wrong = context(&data).ask("which?").schema(json!({"type": 1})).await;
    assert!(matches!(wrong, Err(AskError::Schema(_))), "{wrong:?}");
    let wrong = context(&data).ask("which?").schema("{").await;
    assert!(matches!(wrong, Err(AskError::Schema(_))), "{wrong:?}");
}

#[tokio::test]
async fn signing_in_is_a_question_of_its_own_kind() {
    let answer = Some(message(Content::Text("done".into())));
    let notes = Arc::new(Notes { answer, ..Notes::default() });
    context(&notes).authorization("sign in").await.unwrap();
    context(&notes).ask("which?").await.unwrap();
    let kinds: Vec<_> = notes.asked.lock().unwrap().iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [QuestionKind::Authorization, QuestionKind::Input]);
}

#[tokio::test]
async fn a_checkpoint_is_bounded_and_comes_back() {
    let notes = Arc::new(Notes::default());
    let now = context(&notes);
    assert_eq!((now.attempt(), now.last_checkpoint::<u32>().unwrap()), (1, None));
    now.checkpoint("half").await.unwrap();
    now.checkpoint(&(1, "half")).await.unwrap();
    let largest = "x".repeat(limits::CHECKPOINT_BYTES_MAX - 2);
    now.checkpoint(&largest).await.unwrap();
    let bytes = limits::CHECKPOINT_BYTES_MAX + 1;
    let refused = now.checkpoint(&format!("{largest}x")).await;
    assert_eq!(refused, Err(OutputError::CheckpointTooLarge { bytes }));
    let keys = std::collections::HashMap::from([(vec![1], 1)]);
    assert!(matches!(now.checkpoint(&keys).await, Err(OutputError::Json(_))));
    assert_eq!(now.last_checkpoint::<u32>().unwrap(), None, "it is for the next attempt");

    let kept: Vec<_> = notes.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 3);
    let checkpoint = Some(kept[1].clone());
    let parts = ContextParts { attempt: 2, checkpoint, ..parts(Arc::new(Nowhere)) };
    let later = Context::new(parts);
    assert_eq!(later.attempt(), 2);
    assert_eq!(later.last_checkpoint().unwrap(), Some((1, "half".to_owned())));
    let unreadable = later.last_checkpoint::<bool>().unwrap_err();
    assert!(!unreadable.is_retryable());
}

#[test]
fn an_answer_that_does_not_fit_is_told_where() {
    let schema = json!({"type": "object", "required": ["colour"]});
    let schema = AnswerSchema::new(schema).unwrap();
    let check = |content: Content, expected: &str| match schema.check(&message(content)) {
        Ok(()) => assert_eq!(expected, ""),
        Err(fault) => {
            assert_eq!(fault.code, FaultCode::InvalidParams);
            assert!(fault.message.contains(expected), "{}", fault.message);
        }
    };
    let data = |text| Content::Data(Json::parse(text).unwrap());
    check(data(r#"{"colour": 1}"#), "");
    check(data("{}"), "/colour is missing");
    check(Content::Text("red".into()), "must be of type object");
    check(Content::Url("https://example.org".into()), "message.parts: must be one data part");
    let mut two = message(data(r#"{"colour": 1}"#));
    two.parts.push(two.parts[0].clone());
    assert!(schema.check(&two).is_err());
    let large = json!({"description": "x".repeat(limits::METADATA_BYTES_MAX)});
    assert!(matches!(
        AnswerSchema::new(large),
        Err(AskError::Output(OutputError::TooLarge { .. }))
    ));
}
