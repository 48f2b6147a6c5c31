//! The agent that is tortured: an ordinary one, with a capability for each way in which a handler
//! behaves and misbehaves.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use convoke::{Context, HandlerError, agent};

struct Victim;

#[agent]
impl Victim {
    /// Leave a mark that can be counted, before anything else
    #[capability]
    async fn quick(&self, context: &Context, key: String) -> Result<String, HandlerError> {
        let marks = context.config().metadata.extra.get("marks").and_then(|path| path.as_str());
        let path =
            marks.ok_or_else(|| HandlerError::new("`metadata.marks` is no path"))?.to_owned();
        let task = context.task_id().map(ToString::to_string).unwrap_or_default();
        let line = format!("{task} {key}\n");
        tokio::task::spawn_blocking(move || leave_mark(&path, &line))
            .await
            .map_err(|error| HandlerError::new(error.to_string()))?
            .map_err(|error| HandlerError::new(error.to_string()))?;
        Ok(key)
    }

    /// Count, piece by piece
    #[capability]
    async fn count(&self, context: &Context, to: u32, pause_us: u64) -> Result<u32, HandlerError> {
        let mut numbers = context.artifact("numbers");
        for number in 0..to {
            numbers.text(format!("{number} ")).await?;
            if pause_us > 0 {
                tokio::time::sleep(Duration::from_micros(pause_us)).await;
            }
        }
        numbers.finish().await?;
        Ok(to)
    }

    /// Add numbers up, and go on where another one was
    #[capability(resume)]
    async fn resumable(
        &self,
        context: &Context,
        to: u64,
        pause_us: u64,
    ) -> Result<u64, HandlerError> {
        let (mut next, mut sum) = context.last_checkpoint::<(u64, u64)>()?.unwrap_or((1, 0));
        while next <= to {
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
            (next, sum) = (next + 1, sum + next);
            context.checkpoint(&(next, sum)).await?;
        }
        Ok(sum)
    }

    /// Ask, also after a restart
    #[capability(resume)]
    async fn asks(&self, context: &Context) -> Result<String, HandlerError> {
        Ok(context.ask("which word?").into().await?)
    }

    /// Fail once
    #[capability(resume, retries = 20)]
    async fn flaky(&self, context: &Context) -> Result<u32, HandlerError> {
        match context.attempt() {
            1 => Err(HandlerError::new("the first attempt fails")),
            _ => Ok(2),
        }
    }

    /// Panic
    #[capability]
    async fn panics(&self, context: &Context) -> Result<u32, HandlerError> {
        context.progress("about to").await?;
        #[allow(clippy::panic, reason = "it is what this capability is for")]
        let meant = || panic!("it is meant to");
        meant()
    }

    /// Fail
    #[capability]
    async fn errors(&self, _context: &Context) -> Result<(), HandlerError> {
        Err(HandlerError::new("it is meant to"))
    }

    /// Go on until somebody ends it
    #[capability]
    async fn hangs(&self, context: &Context) -> Result<(), HandlerError> {
        context.progress("hanging").await?;
        context.cancelled().cancelled().await;
        Err(HandlerError::new("cancelled"))
    }

    /// Go on whatever anybody says
    #[capability]
    async fn deaf(&self, context: &Context) -> Result<(), HandlerError> {
        context.progress("hanging").await?;
        std::future::pending().await
    }

    /// Say much
    #[capability]
    async fn chatter(&self, context: &Context, pieces: u32) -> Result<u32, HandlerError> {
        let mut said = context.artifact("said");
        for _ in 0..pieces {
            said.text("x").await?;
        }
        said.finish().await?;
        Ok(pieces)
    }

    /// End, and say more
    #[capability]
    async fn late(&self, context: &Context) -> Result<String, HandlerError> {
        let later = context.clone();
        let mut kept = context.artifact("before");
        kept.text("before").await?;
        tokio::spawn(async move {
            for _ in 0..20 {
                // Refused or dropped, as what comes too late is.
                let _refused = later.progress("after").await;
                let _refused = later.artifact("after").text("after").await;
                let _refused = kept.text("after").await;
                tokio::task::yield_now().await;
            }
        });
        Ok("ended".to_owned())
    }
}

/// Appends a line that is on the disk when this returns.
fn leave_mark(path: &str, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn main() -> ExitCode {
    // Whoever started it holds the other end, and may be killed without a word to its children.
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        let _ended = std::io::stdin().read_to_end(&mut nothing);
        std::process::exit(1);
    });
    convoke::main(Victim)
}
