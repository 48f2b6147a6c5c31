//! The tokens of lists: where a page ended, as a text that means something to its journal alone.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convoke_model::UnixMillis;

use crate::{JournalError, ListQuery, Scope};

/// What tokens begin with, so that their form may change.
const VERSION: u8 = 1;

/// A token before it becomes text: the version and four numbers.
const TOKEN_BYTES: usize = 1 + 4 * size_of::<u64>();

/// Where a task stands in lists, which begin with the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Since when it has its status.
    pub(crate) at: UnixMillis,
    /// Its place in the order in which tasks were made.
    pub(crate) number: u64,
}

/// Where a page ended, and how long the list was when its first page was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) total: u64,
}

/// The token for what follows `place` in the list that `query` asks of `scope`. `key` is a number
/// that peers do not know.
pub(crate) fn token(key: u64, scope: &Scope, query: &ListQuery, place: Place) -> String {
    let Place { position: Position { at, number }, total } = place;
    let list = list_hash(key, scope, query);
    let mut bytes = Vec::with_capacity(TOKEN_BYTES);
    bytes.push(VERSION);
    for value in [at.0, number ^ mask(list, at), total, seal(list, place)] {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the list goes on, according to the query's token; `None` if it has none and begins.
///
/// # Errors
///
/// [`JournalError::PageToken`] if the token is none of this list.
pub(crate) fn place(
    key: u64,
    scope: &Scope,
    query: &ListQuery,
) -> Result<Option<Place>, JournalError> {
    let Some(text) = &query.page_token else { return Ok(None) };
    let mut bytes = [0; TOKEN_BYTES];
    // A text of another length does not fit or does not fill, so that it is not taken apart.
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
    let (VERSION, Ok(TOKEN_BYTES), [_, numbers @ ..]) = (bytes[0], length, &bytes) else {
        return Err(JournalError::PageToken);
    };
    let (numbers, _) = numbers.as_chunks();
    let [at, masked, total, sealed] = *numbers else { return Err(JournalError::PageToken) };
    let list = list_hash(key, scope, query);
    let at = UnixMillis(u64::from_be_bytes(at));
    let number = u64::from_be_bytes(masked) ^ mask(list, at);
    let place = Place { position: Position { at, number }, total: u64::from_be_bytes(total) };
    if seal(list, place) == u64::from_be_bytes(sealed) {
        Ok(Some(place))
    } else {
        Err(JournalError::PageToken)
    }
}

/// Which list it is: whose tasks, and which of them. How much is shown of them, and how many at a
/// time, may differ from page to page.
///
/// The hasher is SipHash. Nothing is kept from anybody by it but the number of a task; whoever forges
/// a token comes to another place of their own list. A build with another hasher refuses the tokens
/// of this one, and the list is begun again.
fn list_hash(key: u64, scope: &Scope, query: &ListQuery) -> u64 {
    let ListQuery { context_id, state, since, capabilities, .. } = query;
    hash((key, scope, (context_id, state, since, capabilities)))
}

/// What hides the number of a task: numbers are counted over all owners, so that they would tell one
/// how busy the others are.
fn mask(list: u64, at: UnixMillis) -> u64 {
    hash((list, at, "mask"))
}

fn seal(list: u64, place: Place) -> u64 {
    hash((list, place.position.at, place.position.number, place.total))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
