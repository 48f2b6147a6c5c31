//! How long the line of handlers before the processors is.
//!
//! A handler that computes keeps its thread until it is done, and those behind it wait in the
//! runtime's own queue, where nobody can be turned away. So what handlers take is measured, and who
//! comes when the line is too long already is turned away before anything is done for them.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Handlers before one processor that are no line yet, however long each takes: an agent that
/// computes for a second each time is not to turn away the third caller.
const FEW: usize = 4;

/// A handler that takes longer than this lets others be looked at before it begins. For shorter
/// ones, that would cost more than it gives.
const LONG: u32 = 100;

/// The line of one agent's handlers.
#[derive(Debug)]
pub(crate) struct Line {
    /// Handlers that were let in and have not ended or paused for the first time.
    standing: AtomicUsize,
    /// What a handler takes of a processor, in microseconds: a mean that follows the last ones.
    usual_us: AtomicU32,
    processors: usize,
    /// The longest line, in time.
    length_max: Duration,
}

/// How much longer than usual a handler is taken to be at most: so many times, and so many
/// microseconds more. Its time is that of the clock, which also goes on while the system has given
/// the processor to another program, and one such turn says nothing of the handlers behind it.
const LONGER: (u32, u32) = (4, 1_000);

/// A handler's place in the line, given back when it is dropped.
#[derive(Debug)]
struct Standing<'a>(&'a Line);

impl Line {
    /// A line that takes half of `queue_time_max` at most: refusals wait behind it too, since they
    /// are made by the same threads.
    pub(crate) fn new(queue_time_max: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            standing: AtomicUsize::new(0),
            usual_us: AtomicU32::new(0),
            processors,
            length_max: queue_time_max / 2,
        }
    }

    /// Whether whoever comes now would wait for too long.
    pub(crate) fn is_long(&self) -> bool {
        let each = self.standing.load(Ordering::Relaxed) / self.processors;
        if each <= FEW {
            return false;
        }
        let usual = Duration::from_micros(self.usual_us.load(Ordering::Relaxed).into());
        usual.saturating_mul(u32::try_from(each).unwrap_or(u32::MAX)) > self.length_max
    }

    /// Runs `handler` when its turn comes, and measures what it takes of a processor.
    pub(crate) async fn stand<T>(&self, handler: impl Future<Output = T>) -> T {
        let standing = Standing::new(self);
        if self.usual_us.load(Ordering::Relaxed) > LONG {
            // Whoever is ready to be turned away is, before a processor is taken for long.
            tokio::task::yield_now().await;
        }
        Measured {
            line: self,
            standing: Some(standing),
            took: Duration::ZERO,
            handler: std::pin::pin!(handler),
        }
        .await
    }

    fn learn(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let usual = self.usual_us.load(Ordering::Relaxed);
        let took = took.min(usual.saturating_mul(LONGER.0).saturating_add(LONGER.1));
        // An eighth of the way towards the last one; two at once may count as one.
        let next = usual - usual / 8 + took / 8;
        if next != usual {
            self.usual_us.store(next, Ordering::Relaxed);
        }
    }
}

impl<'a> Standing<'a> {
    fn new(line: &'a Line) -> Self {
        line.standing.fetch_add(1, Ordering::Relaxed);
        Self(line)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Measured<'a, H> {
    line: &'a Line,
    /// Until it pauses for the first time: a handler that waits for something is in nobody's way.
    standing: Option<Standing<'a>>,
    took: Duration,
    handler: Pin<&'a mut H>,
}

impl<H: Future> Future for Measured<'_, H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<H::Output> {
        let begun = Instant::now();
        let polled = self.handler.as_mut().poll(context);
        self.took += begun.elapsed();
        self.standing = None;
        polled
    }
}

impl<H> Drop for Measured<'_, H> {
    fn drop(&mut self) {
        self.line.learn(self.took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(standing: usize, usual_us: u32) -> Line {
        Line {
            standing: AtomicUsize::new(standing),
            usual_us: AtomicU32::new(usual_us),
            processors: 2,
            length_max: Duration::from_millis(50),
        }
    }

    #[test]
    fn a_line_is_long_by_the_time_that_it_takes() {
        let check = |standing, usual_us, expected: bool| {
            assert_eq!(line(standing, usual_us).is_long(), expected, "{standing} × {usual_us}");
        };
        check(0, 1_000_000, false);
        // A few are no line, however long each takes.
        check(9, 1_000_000, false);
        check(10, 1_000_000, true);
        check(24, 4_000, false);
        check(26, 4_000, true);
        check(10_000, 1, false);
        check(usize::MAX, u32::MAX, true);
    }

    #[test]
    fn what_is_usual_follows_the_last_handlers() {
        let line = line(0, 0);
        for _ in 0..60 {
            line.learn(Duration::from_millis(4));
        }
        let usual = line.usual_us.load(Ordering::Relaxed);
        assert!((3_900..=4_000).contains(&usual), "{usual}");
        for _ in 0..60 {
            line.learn(Duration::ZERO);
        }
        assert!(line.usual_us.load(Ordering::Relaxed) < 10);
        line.learn(Duration::MAX);
    }

    /// On a machine that has much else to do, a handler now and then loses its processor for as long
    /// as a request may wait.
    #[test]
    fn one_turn_of_another_program_makes_no_line() {
        let line = line(200, 8);
        line.learn(Duration::from_secs(1));
        assert!(!line.is_long());
        // Handlers that do take long are believed soon.
        let believed = (1..).take_while(|_| {
            line.learn(Duration::from_millis(20));
            !line.is_long()
        });
        assert!(believed.count() < 20);
    }

    #[tokio::test]
    async fn a_handler_stands_in_line_until_it_pauses() {
        let line = line(0, 0);
        let (resume, paused) = tokio::sync::oneshot::channel::<()>();
        let mut handler = std::pin::pin!(line.stand(async {
            assert_eq!(line.standing.load(Ordering::Relaxed), 1);
            paused.await
        }));
        tokio::select! {
            biased;
            _ = &mut handler => panic!("it waits"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(line.standing.load(Ordering::Relaxed), 0);
        resume.send(()).unwrap();
        handler.await.unwrap();

        // One that is dropped before its turn leaves the line too.
        line.usual_us.store(LONG + 1, Ordering::Relaxed);
        {
            let mut dropped = std::pin::pin!(line.stand(std::future::pending::<()>()));
            tokio::select! {
                biased;
                () = &mut dropped => panic!("it never ends"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(line.standing.load(Ordering::Relaxed), 1);
        }
        assert_eq!(line.standing.load(Ordering::Relaxed), 0);
    }
}
