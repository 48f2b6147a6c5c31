#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use spiffe::{X509Bundle, X509BundleSet, X509Svid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::source::IdentitySource;
use crate::testing::{Authority, Lines, set_validity};
use crate::tls::PeerError;

const AGENT: &str = "spiffe://example.org/agent";

fn config() -> WorkloadApiConfig {
    WorkloadApiConfig::new("/nowhere/api.sock".into(), SpiffeId::parse(AGENT).unwrap())
}

/// What a Workload API pushes: an SVID of `id`, and the bundle of its domain.
fn push(authority: &Authority, id: &str) -> X509Context {
    let leaf = authority.leaf(id, |_| {});
    let svid = X509Svid::parse_from_der(&leaf.certificate, leaf.key.secret_der()).unwrap();
    let domain = spiffe::TrustDomain::new(authority.trust_domain.as_str()).unwrap();
    let mut bundles = X509BundleSet::new();
    bundles.add_bundle(X509Bundle::parse_from_der(domain, &authority.certificate).unwrap());
    X509Context::new([Arc::new(svid)], bundles)
}

type Push = Result<X509Context, WorkloadApiError>;

fn feed() -> (mpsc::UnboundedSender<Push>, Feed) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    (sender, Box::pin(stream::poll_fn(move |cx| receiver.poll_recv(cx))))
}

fn away() -> IdentityError {
    IdentityError::Timeout { socket: "/nowhere/api.sock".into(), waited: Duration::ZERO }
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_is_held_and_what_cannot_be_used_is_not() {
    let authority = Authority::new("example.org");
    let source = IdentitySource::from_material(authority.material(AGENT, &[]));
    let (pushes, feed) = feed();
    let current = source.current_handle();
    tokio::spawn(async move {
        watch_through(&config(), feed, &current, std::future::pending).await;
    });
    let mut changes = source.changes();
    for (id, expected) in [
        ("spiffe://example.org/other", 1),
        (AGENT, 2),
        ("spiffe://example.org/other", 2),
        (AGENT, 3),
    ] {
        pushes.send(Ok(push(&authority, id))).unwrap();
        if *changes.borrow_and_update() < expected {
            changes.changed().await.unwrap();
        }
        assert_eq!(source.current().revision(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_goes_away_is_looked_for_less_and_less_often() {
    const FAILURES: u32 = 9;
    let authority = Authority::new("example.org");
    let source = IdentitySource::from_material(authority.material(AGENT, &[]));
    let (pushes, first) = feed();
    let (_kept, second) = feed();
    let second = Mutex::new(Some((authority.material(AGENT, &[]), second)));
    let (current, tries) = (source.current_handle(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&tries);
    tokio::spawn(async move {
        let open = || {
            let failed = counted.fetch_add(1, Ordering::Relaxed) < FAILURES as usize;
            let found = if failed { None } else { second.lock().unwrap().take() };
            std::future::ready(found.ok_or_else(away))
        };
        watch_through(&config(), first, &current, open).await;
    });
    let (mut changes, begun) = (source.changes(), Instant::now());
    changes.mark_unchanged();
    drop(pushes);
    changes.changed().await.unwrap();
    assert_eq!(source.current().revision(), 2);
    assert_eq!(tries.load(Ordering::Relaxed), FAILURES as usize + 1);
    // Ten waits, from a quarter of a second to half a minute, each shorter by up to a quarter.
    let waits = (0..=FAILURES).map(|at| {
        RECONNECT_AFTER_MIN.saturating_mul(1 << at).min(RECONNECT_AFTER_MAX).as_secs_f64()
    });
    let (longest, took) = (waits.sum::<f64>(), begun.elapsed().as_secs_f64());
    assert!(took <= longest + 0.1 && took >= longest * 0.75, "{took} of {longest}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_is_not_said_to_be_away_and_its_return_is_said() {
    const AWAY: &str = "WARN workload API went away; the identity that is held stays in use until it \
                        expires";
    const REFUSES: &str = "WARN workload API refuses to renew the identity; what is held stays in \
                           use until it expires";
    const BACK: &str = "INFO workload API is back and has renewed the identity";
    let nothing = || {
        let (socket, wanted) = ("/nowhere/api.sock".into(), SpiffeId::parse(AGENT).unwrap());
        IdentityError::NothingIssued { socket, wanted, own: 1 }
    };
    type Errors = Vec<IdentityError>;
    let cases: [(Option<WorkloadApiError>, Errors, &[&str]); 3] = [
        (None, vec![away(), away()], &[AWAY, BACK]),
        // The last is the first that comes.
        (None, vec![nothing(), away(), nothing(), away()], &[AWAY, REFUSES, BACK]),
        (Some(WorkloadApiError::NoIdentityIssued), vec![away(), nothing()], &[REFUSES, BACK]),
    ];
    for (end, mut errors, expected) in cases {
        let lines = Lines::default();
        let _collecting = tracing::subscriber::set_default(lines.clone());
        let authority = Authority::new("example.org");
        let source = IdentitySource::from_material(authority.material(AGENT, &[]));
        let ((pushes, first), (_kept, second)) = (feed(), feed());
        let mut found = Some((authority.material(AGENT, &[]), second));
        let mut outcome = move || errors.pop().map_or_else(|| found.take().ok_or_else(away), Err);
        let current = source.current_handle();
        let mut changes = source.changes();
        changes.mark_unchanged();
        if let Some(end) = end {
            pushes.send(Err(end)).unwrap();
        }
        drop(pushes);
        let (asked, config) = (std::cell::RefCell::new(&mut outcome), config());
        let watched =
            watch_through(&config, first, &current, || std::future::ready((asked.borrow_mut())()));
        tokio::select! {
            () = watched => unreachable!(),
            changed = changes.changed() => changed.unwrap(),
        }
        assert_eq!(lines.all(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_says_nothing_until_the_svid_expires_is_not_there() {
    let authority = Authority::new("example.org");
    let leaf = authority.leaf(AGENT, |params| set_validity(params, -100, 60));
    let source = IdentitySource::from_material(authority.material_of(AGENT, &[], leaf));
    let ((_silent, first), (_kept, second)) = (feed(), feed());
    let second = Mutex::new(Some((authority.material(AGENT, &[]), second)));
    let current = source.current_handle();
    tokio::spawn(async move {
        let open = || std::future::ready(second.lock().unwrap().take().ok_or_else(away));
        watch_through(&config(), first, &current, open).await;
    });
    let (mut changes, begun) = (source.changes(), Instant::now());
    changes.mark_unchanged();
    changes.changed().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(58), "{:?}", begun.elapsed());
}

#[test]
fn waits_leave_time_before_the_svid_expires() {
    for (left, expected) in [(0, 30_000), (1, 250), (8, 2000), (60, 15_000), (3600, 30_000)] {
        let found = longest_wait(Duration::from_secs(left));
        assert_eq!(found, Duration::from_millis(expected), "{left} s");
    }
}

#[tokio::test]
async fn what_is_held_is_used_until_it_expires_and_then_nothing_is() {
    let authority = Authority::new("example.org");
    let leaf = authority.leaf(AGENT, |params| set_validity(params, -100, 60));
    let source = IdentitySource::from_material(authority.material_of(AGENT, &[], leaf));
    let peer = authority.leaf("spiffe://example.org/peer", |_| {});
    let end = source.current().not_after();
    for (at, expected) in [(end.0, true), (end.0 + 1000, false)] {
        let found = crate::tls::still_trusted(
            &source,
            std::slice::from_ref(&peer.certificate),
            convoke_model::UnixMillis(at),
        );
        assert_eq!(found.is_ok(), expected, "{found:?}");
        assert!(expected || matches!(found, Err(PeerError::OwnExpired { .. })), "{found:?}");
    }
}
