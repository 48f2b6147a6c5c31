//! Work of the journal's own that the writer does between batches, each in a commit of its own:
//! retention, compaction, and whatever else changes what is stored and is no task's step.

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::heads::Heads;

/// What a chore does.
type Work<T> = dyn FnOnce(&Connection, &mut Heads) -> Result<T, StoreError> + Send;

/// A chore that was handed to the writer. It should take some milliseconds at most: every caller
/// waits for it.
pub(super) struct Chore(Box<dyn Staged>);

/// A chore whose result is of some type.
trait Staged: Send {
    /// Does the work. Everything is inside one transaction, which the writer begins and commits.
    fn run(&mut self, connection: &Connection, heads: &mut Heads) -> Result<(), StoreError>;

    /// Tells whoever waits how it ended.
    fn end(self: Box<Self>, committed: Result<(), StoreError>);
}

/// The chore and where its result goes.
struct Task<T> {
    work: Option<Box<Work<T>>>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl Chore {
    /// A chore, and where its result will be once it is committed.
    pub(super) fn new<T: Send + 'static>(
        work: impl FnOnce(&Connection, &mut Heads) -> Result<T, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, result) = oneshot::channel();
        let task = Task { work: Some(Box::new(work)), result: None, reply };
        (Self(Box::new(task)), result)
    }

    pub(super) fn run(
        &mut self,
        connection: &Connection,
        heads: &mut Heads,
    ) -> Result<(), StoreError> {
        self.0.run(connection, heads)
    }

    pub(super) fn end(self, committed: Result<(), StoreError>) {
        self.0.end(committed);
    }

    pub(super) fn refuse(self, error: StoreError) {
        self.0.end(Err(error));
    }
}

impl<T: Send> Staged for Task<T> {
    fn run(&mut self, connection: &Connection, heads: &mut Heads) -> Result<(), StoreError> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(connection, heads)?);
        }
        Ok(())
    }

    fn end(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result = committed.and_then(|()| result.ok_or(StoreError::Closed));
        // Whoever asked may have gone.
        drop(reply.send(result));
    }
}
