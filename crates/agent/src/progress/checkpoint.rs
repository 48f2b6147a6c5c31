//! From where a handler goes on when it is run again.

use std::future::ready;

use convoke_model::{Json, limits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::OutputError;
use crate::{BoxFuture, Context, HandlerError};

impl Context {
    /// Keeps `value` as that from which the work can go on, instead of the one before. When this
    /// returns it is committed, as durable as a task is when its caller is told of it: whatever
    /// happens to the agent, a later attempt finds it, or a later one, by
    /// [`last_checkpoint`](Self::last_checkpoint).
    ///
    /// It is for capabilities with `resume` or `retries`, whose handlers are run again from their
    /// beginning. What the handler did since its last checkpoint is done again then, so what must
    /// not happen twice needs a check of its own. The caller does not see checkpoints.
    ///
    /// ```
    /// # async fn send(page: u32) {}
    /// # async fn handler(ctx: convoke_agent::Context) -> Result<(), convoke_agent::HandlerError> {
    /// let sent: u32 = ctx.last_checkpoint()?.unwrap_or(0);
    /// for page in sent..100 {
    ///     send(page).await;
    ///     ctx.checkpoint(&(page + 1)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`OutputError::NoCheckpoint`] in an ephemeral call, [`OutputError::CheckpointTooLarge`] above
    /// [`limits::CHECKPOINT_BYTES_MAX`] bytes of JSON, [`OutputError::Json`] for what JSON cannot
    /// hold, and [`OutputError::Ended`] and [`OutputError::Refused`] if it was not kept.
    #[must_use = "a checkpoint is kept when it is awaited"]
    pub fn checkpoint<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> BoxFuture<'_, Result<(), OutputError>> {
        // Written here and not in the future, which so need not hold on to the value.
        let outlet = self.outlet().ok_or(OutputError::NoCheckpoint);
        match outlet.and_then(|outlet| Ok((outlet, written(value)?))) {
            Ok((outlet, value)) => outlet.checkpoint(value),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    /// What the last [`checkpoint`](Self::checkpoint) of an earlier attempt says; `None` if there
    /// was none, and so the work begins.
    ///
    /// # Errors
    ///
    /// If it is no `T`: an earlier version of the agent may have written it. The task is better ended
    /// than begun again by a handler that does not know what was done, so no further attempt is made
    /// of it.
    pub fn last_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, HandlerError> {
        let read = |checkpoint: &Json| {
            checkpoint.to().map_err(|error| {
                HandlerError::new("the agent cannot read the task's checkpoint any more")
                    .caused_by(error)
                    .permanent()
            })
        };
        self.earlier_checkpoint().map(read).transpose()
    }
}

/// `value` as it is kept.
fn written<T: Serialize + ?Sized>(value: &T) -> Result<Json, OutputError> {
    let value = Json::of(value).map_err(|error| OutputError::Json(error.to_string()))?;
    let bytes = value.get().len();
    if bytes > limits::CHECKPOINT_BYTES_MAX {
        return Err(OutputError::CheckpointTooLarge { bytes });
    }
    Ok(value)
}
