//! The format of the store, and how one of an earlier format becomes one of this.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{OpenError, StoreError};

/// What stands in the header of our stores: `Conv`.
const APPLICATION_ID: i64 = 0x436f_6e76;

/// What makes format 1 of nothing, format 2 of format 1, and so on. What was released is never
/// changed.
const STEPS: &[&str] = &[include_str!("schema.sql")];

/// The newest format, which is the number of steps.
pub(super) const FORMAT: i64 = STEPS.len() as i64;

/// What a file is before it is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is in it.
    Empty,
    /// A store of this format.
    Ours { format: i64 },
    /// Somebody else's.
    Foreign,
}

/// Looks at what is there.
///
/// # Errors
///
/// [`StoreError`] if it cannot be read.
pub(super) fn kind(connection: &Connection) -> Result<Kind, StoreError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application_id = number("PRAGMA application_id")?;
    let format = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    Ok(match (application_id, format, tables) {
        (0, 0, 0) => Kind::Empty,
        (APPLICATION_ID, 1.., 1..) => Kind::Ours { format },
        _ => Kind::Foreign,
    })
}

/// Brings a store of format `from` to the newest, step by step, each wholly or not at all. Format 0
/// is an empty file.
///
/// # Errors
///
/// [`OpenError::Newer`] if it is ahead of us, and [`OpenError::Migration`].
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    from: i64,
) -> Result<(), OpenError> {
    // There are not more steps than a column can count.
    let known = STEPS.len() as i64;
    if from > known {
        return Err(OpenError::Newer { path: path.into(), found: from, known });
    }
    for (step, to) in STEPS.iter().zip(1..).skip_while(|(_, to)| *to <= from) {
        migrate_to(connection, step, to).map_err(|source| OpenError::Migration {
            path: path.into(),
            to,
            source,
        })?;
        if from > 0 {
            tracing::info!(path = %path.display(), format = to, "the journal has another format");
        }
    }
    Ok(())
}

fn migrate_to(connection: &mut Connection, step: &str, to: i64) -> rusqlite::Result<()> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    transaction.execute_batch(step)?;
    if to == 1 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute(
            "INSERT INTO store
                 (only_row, store_id, created_at, opened, epoch, commits, boot_id, is_clean)
             VALUES (1, lower(hex(randomblob(16))), unixepoch() * 1000, 0, 1, 0, '', 1)",
            [],
        )?;
    }
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}
