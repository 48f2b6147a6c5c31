//! The agent whose tasks are measured: its handlers do nothing that would cost.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use convoke::serve::{Host, ServeOptions, run};
use convoke::{Context, HandlerError, agent};
use tokio_util::sync::CancellationToken;

/// What one event of a stream says.
const WORDS: &str = "and so it goes on, one piece after the other ";

struct Subject;

#[agent]
impl Subject {
    /// Wait for ever
    #[capability]
    async fn hold(&self, context: &Context, text: String) -> Result<String, HandlerError> {
        context.cancelled().cancelled().await;
        Ok(text)
    }

    /// End at once
    #[capability]
    async fn note(&self, _context: &Context, text: String) -> Result<String, HandlerError> {
        Ok(text)
    }

    /// Say so many pieces
    #[capability]
    async fn tell(&self, context: &Context, pieces: u32) -> Result<u32, HandlerError> {
        say(context, pieces).await?;
        Ok(pieces)
    }

    /// Ask, and say so many pieces once there is an answer
    #[capability]
    async fn relay(&self, context: &Context, pieces: u32) -> Result<u32, HandlerError> {
        context.ask("go on?").text().await?;
        say(context, pieces).await?;
        Ok(pieces)
    }
}

async fn say(context: &Context, pieces: u32) -> Result<(), HandlerError> {
    let mut text = context.artifact("text");
    for _ in 1..pieces {
        text.text(WORDS).await?;
    }
    Ok(text.finish().await?)
}

/// Serves the agent, on a plaintext listener too if `dev`, until standard input ends.
pub(crate) fn serve(config: &Path, dev: bool) -> Result<()> {
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    std::thread::spawn(move || {
        // However reading ends, nobody is there any more.
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    let host = Host::new(Subject)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dev = dev.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let options = ServeOptions { shutdown, dev, ..ServeOptions::default() };
    Ok(runtime.block_on(run(config, host, options))?)
}
