//! What `--check` finds out about an agent.

#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use convoke::serve::{Host, check};
use convoke::{Context, HandlerError, agent};

struct Guarded;

#[agent]
impl Guarded {
    /// For everybody
    #[capability]
    async fn free(&self, _context: &Context) -> Result<u8, HandlerError> {
        Ok(0)
    }

    /// For few
    #[capability(requires_peer = "spiffe://example.org/admin/*")]
    async fn kept(&self, _context: &Context) -> Result<u8, HandlerError> {
        Ok(0)
    }
}

#[test]
fn guards_are_those_of_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.yaml");
    let text = "identity: {spiffe_id: spiffe://example.org/a, spire_socket: /nowhere/api.sock}\n";
    std::fs::write(&config, text).unwrap();
    let checked = check(&config, &Host::new(Guarded).unwrap()).unwrap();
    assert_eq!(checked.spiffe_id.as_str(), "spiffe://example.org/a");
    assert!(checked.warnings.iter().any(|warning| warning.contains("no policy is loaded")));
    let guards = checked.capabilities.iter().map(|one| (&*one.name, one.requires_peer.as_deref()));
    let admins = ["spiffe://example.org/admin/*".to_owned()];
    assert_eq!(guards.collect::<Vec<_>>(), [("free", None), ("kept", Some(&admins[..]))]);
}
