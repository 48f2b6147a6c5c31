//! The agent that trials are made with: capabilities whose cost is known.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use convoke::serve::{Host, ServeOptions, run};
use convoke::{Context, HandlerError, agent};
use tokio_util::sync::CancellationToken;

/// Gives back, keeps busy, or takes its time.
struct Exerciser;

#[agent]
impl Exerciser {
    /// Give back what came
    #[capability(ephemeral)]
    async fn echo(&self, _context: &Context, text: String) -> Result<String, HandlerError> {
        Ok(text)
    }

    /// Keep a core busy
    #[capability(ephemeral)]
    async fn spin(&self, _context: &Context, micros: u64) -> Result<u64, HandlerError> {
        let until = Instant::now() + Duration::from_micros(micros.min(1_000_000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        Ok(micros)
    }

    /// Take some time, and say ten times how far it is
    #[capability]
    async fn work(&self, context: &Context, millis: u64) -> Result<u64, HandlerError> {
        for step in 1..=10 {
            tokio::time::sleep(Duration::from_millis(millis.min(60_000) / 10)).await;
            context.progress(format!("{step} of 10")).await?;
        }
        Ok(millis)
    }
}

/// Serves the agent until standard input ends.
pub(crate) fn serve(config: &Path) -> Result<()> {
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    std::thread::spawn(move || {
        // However reading ends, nobody is there any more.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    let host = Host::new(Exerciser)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let options = ServeOptions { shutdown, ..ServeOptions::default() };
    Ok(runtime.block_on(run(config, host, options))?)
}
