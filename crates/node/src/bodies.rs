//! Request bodies: how large, how fast, and how many large ones at a time.

use convoke_model::{Caller, Fault, limits};
use convoke_net::server::{Body, BodyError, read_body, read_body_at};
use http_body::Body as _;

use crate::budget::{Budget, Room};
use crate::connection::{Connection, Listener};

/// Why a body is not there.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It broke a bound of its own.
    Body(BodyError),
    /// There was no room for it in time.
    Busy(Fault),
}

/// Reads `body`, which has to wait for its turn if it is large, and then has to come fast enough:
/// it keeps others waiting. One without a length counts as large as it may become.
pub(crate) async fn read(
    budget: &Budget,
    body_bytes_max: usize,
    connection: &Connection,
    body: Body,
) -> Result<(bytes::Bytes, Room), Unread> {
    let max = match (&connection.caller, connection.listener) {
        // Whatever a caller without a credential sends here is refused; it gets to send enough to
        // be refused by name, and no room that others wait for.
        (Caller::Anonymous, Listener::Mesh) => body_bytes_max.min(limits::SMALL_BODY_BYTES_MAX),
        _ => body_bytes_max,
    };
    let declared = body.size_hint().exact();
    let bytes = declared.map_or(max, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if bytes > max {
        return Err(Unread::Body(BodyError::TooLarge { max }));
    }
    let room = budget.room(&connection.caller_name, bytes).await.map_err(Unread::Busy)?;
    let read = if bytes > limits::SMALL_BODY_BYTES_MAX {
        read_body_at(body, max, limits::LARGE_BODY_BYTES_PER_SECOND_MIN).await
    } else {
        read_body(body, max).await
    };
    Ok((read.map_err(Unread::Body)?, room))
}
