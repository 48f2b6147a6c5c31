//! What is waited for, on a terminal, once it has taken a second: one line that goes away again.

use std::borrow::Cow;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How long nothing is said.
const QUIET: Duration = Duration::from_secs(1);

/// How often the line is written anew.
const TICK: Duration = Duration::from_millis(250);

/// Longest line, in columns, on a terminal that is wider or does not say how wide it is.
const WIDTH_MAX: usize = 78;

/// Whether the line is there now.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Whether the line has to stay away, because the cursor stands in a line of something else.
static HELD: AtomicBool = AtomicBool::new(false);

/// What is waited for now.
static LABEL: Mutex<String> = Mutex::new(String::new());

/// Does `work`, and says on a terminal that it waits for `what` when that takes a while. Says
/// nothing if `quiet`, or if nobody looks.
pub(crate) async fn waiting<T>(what: String, quiet: bool, work: impl Future<Output = T>) -> T {
    if quiet || !std::io::stderr().is_terminal() {
        return work.await;
    }
    label(what);
    let mut work = std::pin::pin!(work);
    let begun = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                wipe();
                return done;
            }
            _ = tick.tick() => {
                let waited = begun.elapsed();
                if waited >= QUIET && !HELD.load(Ordering::Relaxed) {
                    draw(waited);
                }
            }
        }
    }
}

/// Says what is waited for from now on.
pub(crate) fn label(what: impl Into<String>) {
    *LABEL.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// Keeps the line away, or lets it come again.
pub(crate) fn hold(held: bool) {
    HELD.store(held, Ordering::Relaxed);
}

/// Removes the line, before something else is written.
pub(crate) fn wipe() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        write("\r\u{1b}[2K");
    }
}

fn draw(waited: Duration) {
    let what = LABEL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    SHOWN.store(true, Ordering::Relaxed);
    write(&format!("\r\u{1b}[2K{}", line(&what, waited, width())));
}

/// The columns that a line may take. The last one stays free: some terminals wrap when it is filled.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    match size.map(|size| usize::from(size.ws_col)) {
        Ok(columns @ 1..) => (columns - 1).min(WIDTH_MAX),
        // Nobody knows, which is no reason not to say what is waited for.
        Ok(0) | Err(_) => WIDTH_MAX,
    }
}

/// A line of at most `width` columns: one that wraps could not be wiped. Where there is little room,
/// how long it took is worth more than the words before it.
fn line(what: &str, waited: Duration, width: usize) -> String {
    let what = format!("waiting for {}", crate::paint::plain(what));
    let time = format!(" ({} s)", waited.as_secs());
    let time = cut(&time, width);
    let what = cut(&what, width - time.width());
    format!("{what}{time}")
}

/// As much of `text` as takes at most `width` columns, with a mark where something is missing.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let Some(room) = width.checked_sub(1) else { return Cow::Borrowed("") };
    let mut taken = 0;
    let fits = |c: &char| {
        taken += c.width().unwrap_or_default();
        taken <= room
    };
    Cow::Owned(text.chars().take_while(fits).chain(['…']).collect())
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // A terminal that has gone away is no reason to fail.
    let _gone = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_wraps() {
        let long = "x".repeat(500);
        let line = line(&long, Duration::from_secs(12_345), WIDTH_MAX);
        assert_eq!(line.chars().count(), WIDTH_MAX);
        assert!(line.starts_with("waiting for xxx"));
        assert!(line.ends_with("… (12345 s)"), "{line}");
        let line = super::line("the worker\u{1b}[2J", Duration::from_millis(1900), WIDTH_MAX);
        assert_eq!(line, "waiting for the worker\u{fffd}[2J (1 s)");
        // Characters of two columns, on terminals of every width.
        for width in 0..=WIDTH_MAX {
            let line = super::line(&"報".repeat(80), Duration::from_secs(7), width);
            assert!(line.width() <= width, "{width}: {line}");
            assert!(width < 20 || line.ends_with("… (7 s)") && line.width() >= width - 1, "{line}");
        }
    }
}
