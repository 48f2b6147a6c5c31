//! A task as its handler speaks to it.

use convoke_agent::{AskError, BoxFuture, Outlet, Output, OutputError, Question};
use convoke_model::Message;
use tokio::sync::oneshot;

use super::Running;
use super::output::{Asked, Item, Queue};

impl Outlet for Running {
    fn emit(&self, output: Output) -> BoxFuture<'_, Result<(), OutputError>> {
        Box::pin(self.output.put(Item::Output(output)))
    }

    fn leave(&self, output: Output) {
        self.output.put_now(Item::Output(output));
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Message, AskError>> {
        Box::pin(async move {
            let max = self.questions.max();
            let share = self.questions.take(&self.scope.owner).ok_or(AskError::TooMany { max })?;
            let (reply, answer) = oneshot::channel();
            self.output.put(Item::Question(Asked { question, reply, _share: share })).await?;
            // Dropped before the answer's receiver is, were it not declared after it.
            let mut withdraw = Withdraw { output: &self.output, answer: Some(answer) };
            let answered = match &mut withdraw.answer {
                Some(answer) => answer.await,
                None => return Err(OutputError::Ended.into()),
            };
            withdraw.answer = None;
            answered.unwrap_or_else(|_ended| {
                Err(self.output.refusal().unwrap_or(OutputError::Ended).into())
            })
        })
    }
}

/// Says that nobody waits for an answer any more, if it is dropped before there is one.
struct Withdraw<'a> {
    output: &'a Queue,
    answer: Option<oneshot::Receiver<Result<Message, AskError>>>,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        // Closed first, because that is what the task looks at.
        if let Some(mut answer) = self.answer.take() {
            answer.close();
            self.output.put_now(Item::Withdrawal);
        }
    }
}
