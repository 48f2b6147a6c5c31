//! The end of a held identity and its return, in the log: between the two nobody is let in, and
//! whoever looks for the reason looks there.

use std::time::Duration;

use rustls_pki_types::UnixTime;

use super::Current;

/// The longest sleep before the clock is looked at again: it may be set, and a machine may be
/// suspended.
const LOOK_AFTER_MAX: Duration = Duration::from_secs(30);

/// The shortest one, for an SVID in its last second.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(100);

/// Says when the identity has expired, and when there is a valid one again. Ends only with the task
/// it runs on.
pub(super) async fn tell(current: Current) {
    loop {
        until(&current, true).await;
        let material = current.load();
        tracing::error!(
            spiffe_id = %material.spiffe_id(), not_after = %material.not_after(),
            "identity has expired; nobody is let in and nobody is called until it is renewed"
        );
        drop(material);
        until(&current, false).await;
        let material = current.load();
        tracing::info!(
            spiffe_id = %material.spiffe_id(), not_after = %material.not_after(),
            "identity is valid again"
        );
    }
}

/// Waits until what is held has expired, or is valid.
async fn until(current: &Current, expired: bool) {
    let mut changes = current.0.revision.subscribe();
    while current.load().is_expired(UnixTime::now()) != expired {
        let wait = match expired {
            true => current.left().clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX),
            false => LOOK_AFTER_MAX,
        };
        // The sender lives in `current`, so a change is the only outcome.
        let _changed_or_time = tokio::time::timeout(wait, changes.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use futures_util::poll;

    use super::*;
    use crate::source::IdentitySource;
    use crate::testing::{Authority, Lines, set_validity};

    const AGENT: &str = "spiffe://example.org/agent";

    #[tokio::test]
    async fn the_end_of_an_identity_and_its_return_are_seen() {
        let authority = Authority::new("example.org");
        let source = IdentitySource::from_material(authority.material(AGENT, &[]));
        let current = source.current_handle();
        let lines = Lines::default();
        let _collecting = tracing::subscriber::set_default(lines.clone());
        let mut telling = Box::pin(tell(current));
        assert!(poll!(&mut telling).is_pending());
        assert_eq!(lines.all(), [""; 0]);

        let leaf = authority.leaf(AGENT, |params| set_validity(params, -200, -100));
        source.publish(authority.material_of(AGENT, &[], leaf)).unwrap();
        assert!(poll!(&mut telling).is_pending());
        let expired =
            "ERROR identity has expired; nobody is let in and nobody is called until it is renewed";
        assert_eq!(lines.all(), [expired]);

        source.publish(authority.material(AGENT, &[])).unwrap();
        assert!(poll!(&mut telling).is_pending());
        assert_eq!(lines.all(), [expired, "INFO identity is valid again"]);
    }
}
