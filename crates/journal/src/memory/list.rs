//! Pages of lists over what is in memory.

use std::ops::Bound;
use std::sync::Arc;

use convoke_model::{Task, UnixMillis};

use super::shelf::{Listed, Owner, Shelf};
use crate::page::{Place, Position};
use crate::{ListQuery, Scope};

/// The tasks of a page, before they are copied out.
pub(super) struct Found {
    pub(super) tasks: Vec<Arc<Task>>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<Place>,
    pub(super) total: u64,
}

impl Shelf {
    /// The tasks behind `place` that `query` asks for; `None` begins with the newest. Without
    /// filters it costs what the page costs; with them, a look at each of the owner's tasks that is
    /// passed over.
    pub(super) fn list(&self, scope: &Scope, query: &ListQuery, place: Option<Place>) -> Found {
        let Some(owner) = self.owners.get(scope) else {
            let total = place.map_or(0, |place| place.total);
            return Found { tasks: Vec::new(), next: None, total };
        };
        let total = place.map_or_else(|| owner.count(query), |place| place.total);
        let page_size = usize::try_from(query.page_size).unwrap_or(usize::MAX);
        let mut found = owner.behind(query, place.map(|place| place.position));
        let mut tasks = Vec::new();
        let mut last = None;
        while tasks.len() < page_size
            && let Some((position, listed)) = found.next()
        {
            tasks.extend(owner.tasks.get(&listed.id).map(|entry| Arc::clone(&entry.task)));
            last = Some(*position);
        }
        let more = found.next().is_some();
        let next = last.filter(|_| more).map(|position| Place { position, total });
        Found { tasks, next, total }
    }
}

impl Owner {
    fn count(&self, query: &ListQuery) -> u64 {
        let count =
            if is_open(query) { self.listed.len() } else { self.behind(query, None).count() };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// What `query` asks for, behind `position` in the order of lists.
    fn behind<'a>(
        &'a self,
        query: &'a ListQuery,
        position: Option<Position>,
    ) -> impl Iterator<Item = (&'a Position, &'a Listed)> {
        let since = Position { at: query.since.unwrap_or(UnixMillis(0)), number: 0 };
        // A place before all that is asked for has nothing behind it; a range cannot say that.
        let until =
            position.map_or(Bound::Unbounded, |position| Bound::Excluded(position.max(since)));
        self.listed
            .range((Bound::Included(since), until))
            .rev()
            .filter(move |(_, listed)| passes(query, listed))
    }
}

/// Whether every task passes.
fn is_open(query: &ListQuery) -> bool {
    query.context_id.is_none()
        && query.state.is_none()
        && query.since.is_none()
        && query.capabilities.is_none()
}

fn passes(query: &ListQuery, listed: &Listed) -> bool {
    query.state.is_none_or(|state| state == listed.state)
        && query.context_id.as_ref().is_none_or(|id| *id == listed.context_id)
        && query.capabilities.as_ref().is_none_or(|names| names.contains(&listed.capability))
}
