//! Looking things up, beside the writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use super::error::StoreError;
use super::shared::Shared;
use super::{BUSY_WAIT, STATEMENTS};
use crate::JournalError;

/// How many read at a time. They are on the threads for blocking work, and mostly wait for memory:
/// more of them would only push each other out of it.
const READERS: usize = 4;

/// How many of them lists may have at a time.
const LISTS: usize = 2;

/// Connections that can only read.
pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    /// Lists, which may take long, have a part of the turns.
    lists: Semaphore,
    shared: Arc<Shared>,
}

impl Readers {
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be opened to be read.
    pub(super) fn open(file: &Path, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let idle = (0..READERS).map(|_| open(file)).collect::<Result<Vec<_>, _>>()?;
        let turns = Arc::new(Semaphore::new(READERS));
        let lists = Semaphore::new(LISTS);
        Ok(Self { file: file.into(), idle: Mutex::new(idle), turns, lists, shared })
    }

    /// As [`Self::look`], for what may take long: others are never without a turn because of it.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub(super) async fn look_long<T, E, F>(self: &Arc<Self>, look: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        E: Into<LookError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let Ok(_turn) = self.lists.acquire().await else {
            return Err(StoreError::Closed.into_journal(&self.shared.path));
        };
        self.look(look).await
    }

    /// Does `look` with a connection, as of one instant.
    ///
    /// # Errors
    ///
    /// What `look` says; what is wrong with the store is noted.
    pub(super) async fn look<T, E, F>(self: &Arc<Self>, look: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        E: Into<LookError> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else {
            return Err(StoreError::Closed.into_journal(&shared.path));
        };
        let readers = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            readers.look_now(look)
        });
        // The runtime is ending, or `look` has panicked and its connection is gone.
        let looked = looked.await.unwrap_or_else(|_| Err(StoreError::Closed.into()));
        looked.map_err(|error| match error {
            LookError::Store(error) if error.is_passing() => error.into_journal(&shared.path),
            LookError::Store(error) => shared.failed(error),
            LookError::Journal(error) => error,
        })
    }

    fn look_now<T, E: Into<LookError>>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, LookError> {
        let idle = self.idle().pop();
        // One that panicked has taken its connection with it.
        let connection = idle.map_or_else(|| open(&self.file), Ok)?;
        let looked = look_as_of_now(&connection, look);
        self.idle().push(connection);
        looked
    }

    /// Waits for those who read, and lets nobody else.
    pub(super) fn close(&self) {
        self.lists.close();
        self.turns.close();
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A push and a pop cannot panic half-way.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a look gave nothing.
pub(super) enum LookError {
    Store(StoreError),
    /// It could not be asked like this.
    Journal(JournalError),
}

/// All that is read is of one commit.
fn look_as_of_now<T, E: Into<LookError>>(
    connection: &Connection,
    look: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, LookError> {
    // It is only read, so that how it ends means nothing.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    look(&transaction).map_err(Into::into)
}

/// A connection that can only read.
///
/// # Errors
///
/// [`StoreError`] if it cannot be opened.
pub(super) fn open(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for LookError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<JournalError> for LookError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}
