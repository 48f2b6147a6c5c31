//! Full mutual TLS handshakes: both sides on one thread, bytes handed over in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use convoke_identity::IdentitySource;
use convoke_identity::tls::{self, verified_peer};
use convoke_model::SpiffeId;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use serde::Serialize;

use crate::authority::{Authority, HOST};
use crate::ceiling;
use crate::options::Pace;
use crate::stats::{Sample, Spread, interleave};

/// Flights after which a handshake that is not over never will be. TLS 1.3 needs three.
const FLIGHTS_MAX: usize = 8;

/// Handshakes a second, ours beside rustls alone.
#[derive(Debug, Serialize)]
pub(crate) struct Handshakes {
    pub(crate) ours_per_second: Spread,
    pub(crate) bare_per_second: Spread,
    pub(crate) ratio: Spread,
    /// Handshakes of each side.
    pub(crate) count: u64,
}

/// The two sides of a kind of handshake.
struct Sides {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// Whom the server finds in the client's certificate; bare rustls does not look.
    caller: Option<SpiffeId>,
}

/// Measures both kinds with the same certificates.
///
/// # Errors
///
/// If one handshake fails, or is not a full one with certificates of both sides.
pub(crate) fn measure(pace: Pace) -> Result<Handshakes> {
    let authority = Authority::new("example.org")?;
    let (worker, caller) = (
        SpiffeId::parse("spiffe://example.org/document-worker")?,
        SpiffeId::parse("spiffe://example.org/orchestrator")?,
    );
    let (server, client) = (authority.leaf(&worker)?, authority.leaf(&caller)?);
    let bare = Sides {
        client: ceiling::tls::client_config(&client, &authority.root)?,
        server: ceiling::tls::server_config(&server, &authority.root)?,
        caller: None,
    };
    let server = IdentitySource::from_material(authority.material(&worker, &server)?);
    let client = IdentitySource::from_material(authority.material(&caller, &client)?);
    let ours = Sides {
        client: tls::client_config(&client, &worker, &[b"http/1.1"])?,
        server: tls::server_config(&server)?,
        caller: Some(caller),
    };
    let kinds = [bare, ours];
    for sides in &kinds {
        sides.shake()?;
    }
    let rounds = interleave(kinds.len(), pace.rounds, |index| {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < pace.run / 4 {
            kinds[index].shake()?;
            count += 1;
        }
        Ok(Sample { count, elapsed: begun.elapsed(), ..Sample::default() })
    })?;
    Ok(Handshakes {
        ours_per_second: Spread::over(&rounds[1], Sample::per_second)?,
        bare_per_second: Spread::over(&rounds[0], Sample::per_second)?,
        ratio: Spread::ratio(&rounds[1], &rounds[0], Sample::per_second)?,
        count: rounds[1].iter().map(|round| round.count).sum(),
    })
}

impl Sides {
    fn shake(&self) -> Result<()> {
        let mut client =
            ClientConnection::new(Arc::clone(&self.client), ServerName::try_from(HOST)?)?;
        let mut server = ServerConnection::new(Arc::clone(&self.server))?;
        let mut flight = Vec::with_capacity(4096);
        for _ in 0..FLIGHTS_MAX {
            while client.wants_write() {
                client.write_tls(&mut flight)?;
            }
            let mut rest = &flight[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest)?;
                server.process_new_packets()?;
            }
            flight.clear();
            while server.wants_write() {
                server.write_tls(&mut flight)?;
            }
            let mut rest = &flight[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest)?;
                client.process_new_packets()?;
            }
            flight.clear();
            if !client.is_handshaking() && !server.is_handshaking() {
                return self.check(&client, &server);
            }
        }
        bail!("a handshake is not over after {FLIGHTS_MAX} flights")
    }

    fn check(&self, client: &ClientConnection, server: &ServerConnection) -> Result<()> {
        let full = |kind| matches!(kind, Some(HandshakeKind::Full));
        ensure!(full(client.handshake_kind()) && full(server.handshake_kind()), "not a full one");
        let callers = server.peer_certificates().context("a caller without certificate")?;
        if let Some(caller) = &self.caller {
            // A listener of ours does this for every connection, so it belongs to the cost.
            let found = verified_peer(callers)?.context("a caller without identity")?;
            ensure!(found.spiffe_id == *caller, "another caller");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_kinds_come_to_an_end() {
        let pace = Pace { rounds: 1, run: Duration::from_millis(4), starts: 1 };
        let handshakes = measure(pace).unwrap();
        assert!(handshakes.count > 0);
        assert!(handshakes.ratio.median > 0.0);
    }
}
