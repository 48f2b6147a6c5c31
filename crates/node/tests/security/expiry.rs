//! Nothing outlives the certificate that it was let in by.

use std::time::{Duration, SystemTime};

use crate::authority::set_validity;
use crate::mesh::{Caller, Mesh, Outcome, VERSIONS};

/// How long the caller's certificate is good.
const LIFE: Duration = Duration::from_secs(2);

/// A call that never ends by itself ends with the certificate of its caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_stream_outlives_svid() {
    let mesh = Mesh::start(&[]).await;
    for version in VERSIONS {
        let expires = SystemTime::now() + LIFE;
        let svid = mesh.authority.svid_with("spiffe://example.org/may/call", |params| {
            set_validity(params, -100, i64::try_from(LIFE.as_secs()).unwrap());
        });
        let mut caller = Caller::connect(mesh.mesh, Some(&svid), version).await.unwrap();
        let outcome = caller.call("wait").await;
        assert!(matches!(outcome, Outcome::Broken(_)), "{version:?}: {outcome:?}");
        let late = SystemTime::now().duration_since(expires).unwrap_or_default();
        assert!(late < Duration::from_secs(5), "{version:?}: {late:?}");
    }
    mesh.end().await;
}

/// An idle connection is closed before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_before_its_certificate() {
    let mesh = Mesh::start(&[]).await;
    for version in VERSIONS {
        let expires = SystemTime::now() + LIFE;
        let svid = mesh.authority.svid_with("spiffe://example.org/may/call", |params| {
            set_validity(params, -100, i64::try_from(LIFE.as_secs()).unwrap());
        });
        let mut caller = Caller::connect(mesh.mesh, Some(&svid), version).await.unwrap();
        assert_eq!(caller.call("echo").await.status(), Some(200));
        caller.ended().await;
        assert!(SystemTime::now() <= expires, "{version:?}");
    }
    mesh.end().await;
}
