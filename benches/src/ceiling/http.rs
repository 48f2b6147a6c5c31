//! `ceil_http`: hyper over TCP.

#![allow(clippy::disallowed_methods, reason = "a ceiling is what `net` is measured against")]

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use tokio::net::TcpListener;

use super::{Reply, echo, until_input_ends};

/// Serves the answer in the file `answer` on a free port, which it prints.
pub(crate) fn run(answer: &Path) -> Result<()> {
    let reply = Reply::read(answer)?;
    until_input_ends(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        crate::say(&listener.local_addr()?.to_string())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream, reply.clone()));
        }
    })
}
