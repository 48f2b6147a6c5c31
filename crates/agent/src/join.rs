//! Many calls at once.

use std::iter::Enumerate;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_util::StreamExt;
use futures_util::future::{self, Join, Ready};
use futures_util::stream::FuturesUnordered;

/// Runs `calls`, at most `limit` at a time (zero counts as one), and gives each one's result in the
/// order of the calls. One that fails stops no other.
///
/// A slow call holds up nothing but its own place: whenever one ends, the next begins. Dropping the
/// returned future drops every call that is under way.
///
/// ```
/// # use convoke_agent::join_calls;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let calls = [4, 0, 2].map(|n: u32| async move { 8_u32.checked_div(n).ok_or("by zero") });
/// assert_eq!(join_calls(calls, 2).await, [Ok(2), Err("by zero"), Ok(4)]);
/// # });
/// ```
pub fn join_calls<I, T, E>(calls: I, limit: usize) -> JoinCalls<I::Item>
where
    I: IntoIterator,
    I::Item: Future<Output = Result<T, E>>,
{
    // The calls are taken out of their iterator at once. Were it kept, the compiler could not prove
    // that a handler is `Send` when the iterator has a closure that borrows.
    let calls: Vec<_> = calls.into_iter().collect();
    JoinCalls {
        results: calls.iter().map(|_| None).collect(),
        waiting: calls.into_iter().enumerate(),
        running: FuturesUnordered::new(),
        limit: limit.max(1),
    }
}

/// The future of [`join_calls`].
#[must_use = "calls are made when they are awaited"]
#[derive(Debug)]
pub struct JoinCalls<F: Future> {
    waiting: Enumerate<vec::IntoIter<F>>,
    /// Each with its place among the results.
    running: FuturesUnordered<Join<Ready<usize>, F>>,
    results: Vec<Option<F::Output>>,
    limit: usize,
}

/// A call that waits has not been polled yet, and one that runs is pinned where it runs.
impl<F: Future> Unpin for JoinCalls<F> {}

impl<F: Future> Future for JoinCalls<F> {
    type Output = Vec<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let free = this.limit.saturating_sub(this.running.len());
            let begin = this.waiting.by_ref().take(free);
            this.running
                .extend(begin.map(|(place, call)| future::join(future::ready(place), call)));
            match ready!(this.running.poll_next_unpin(context)) {
                Some((place, result)) => this.results[place] = Some(result),
                None => return Poll::Ready(this.results.drain(..).flatten().collect()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn results_keep_the_order_of_the_calls() {
        let (first, waits) = oneshot::channel::<u32>();
        let mut first = Some(first);
        let mut waits = Some(waits);
        // The first call ends only because the last one was begun although it had not ended.
        let calls = (0..5_u32).map(|n| {
            let (first, waits) = (
                if n == 4 { first.take() } else { None },
                if n == 0 { waits.take() } else { None },
            );
            async move {
                if let Some(first) = first {
                    first.send(100).unwrap();
                }
                match waits {
                    Some(waits) => waits.await.map_err(|_| n),
                    None if n == 2 => Err(n),
                    None => Ok(n),
                }
            }
        });
        assert_eq!(join_calls(calls, 2).await, [Ok(100), Ok(1), Err(2), Ok(3), Ok(4)]);
    }

    #[tokio::test]
    async fn no_more_run_than_the_limit() {
        let (running, peak) = (Cell::new(0), Cell::new(0));
        for (limit, expected) in [(0, 1), (1, 1), (7, 7), (1000, 50)] {
            peak.set(0);
            let calls = (0..50).map(|n| {
                let (running, peak) = (&running, &peak);
                async move {
                    running.set(running.get() + 1);
                    peak.set(peak.get().max(running.get()));
                    tokio::task::yield_now().await;
                    running.set(running.get() - 1);
                    Ok::<_, ()>(n)
                }
            });
            assert_eq!(join_calls(calls, limit).await, (0..50).map(Ok).collect::<Vec<_>>());
            assert_eq!(peak.get(), expected, "limit {limit}");
        }
    }

    #[test]
    fn a_handler_that_joins_borrowing_calls_can_be_sent() {
        async fn call(text: &str) -> Result<usize, ()> {
            Ok(text.len())
        }
        async fn handler(texts: Vec<String>) -> usize {
            join_calls(texts.iter().map(|text| call(text)), 2).await.len()
        }
        fn sent<F: Future + Send>(_: F) {}
        sent(handler(Vec::new()));
    }

    #[tokio::test]
    async fn nothing_to_join_is_nothing() {
        let none: [std::future::Ready<Result<(), ()>>; 0] = [];
        assert!(join_calls(none, 4).await.is_empty());
    }
}
