//! What entries give and take.

use std::time::Duration;

use convoke_identity::IdentityError;
use convoke_identity::issuer::{AdminError, Refusal, Registration, Selector};
use futures_util::StreamExt;
use spiffe::WorkloadApiError;

use crate::world::{CALLER, WORKER, World, id, other_program, our_program, our_uid};

/// The IDs that a stream's next message gives, in order.
async fn next_ids<S>(stream: &mut S) -> Result<Vec<String>, WorkloadApiError>
where
    S: futures_util::Stream<Item = Result<spiffe::X509Context, WorkloadApiError>> + Unpin,
{
    let context = stream.next().await.expect("the stream goes on")?;
    Ok(context.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect())
}

#[tokio::test]
async fn whoever_several_entries_mean_gets_all_and_every_change_is_pushed() {
    let world = World::start().await;
    world.entry("spiffe://example.org/other", &[our_uid(), other_program()]).await;
    let worker = world.entry(WORKER, &[our_uid()]).await;
    let mut stream = Box::pin(world.client().await.stream_x509_contexts().await.unwrap());
    assert_eq!(next_ids(&mut stream).await.unwrap(), [WORKER]);

    let caller = world.entry(CALLER, &[our_program(), our_uid()]).await;
    assert_eq!(next_ids(&mut stream).await.unwrap(), [WORKER, CALLER]);
    let listed = world.admin().list().await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(listed[1], worker);

    assert_eq!(world.admin().remove(worker.id).await.unwrap(), worker);
    assert_eq!(next_ids(&mut stream).await.unwrap(), [CALLER]);
    world.admin().remove(caller.id).await.unwrap();
    let error = next_ids(&mut stream).await.unwrap_err();
    assert!(matches!(error, WorkloadApiError::NoIdentityIssued), "{error:?}");
    world.stop().await;
}

#[tokio::test]
async fn the_first_entry_ends_what_processes_gave_to_themselves_for_good() {
    let world = World::start().await;
    world.source(WORKER).await.unwrap();
    let mut stream = Box::pin(world.client().await.stream_x509_contexts().await.unwrap());
    assert_eq!(next_ids(&mut stream).await.unwrap(), [WORKER]);
    let registration = |selectors| Registration { spiffe_id: id(CALLER), selectors, ttl: None };
    let first = registration(vec![our_uid(), other_program()]);
    let added = world.admin().add(&first).await.unwrap();
    // Of the processes that lose their identities, this one.
    assert_eq!(added.enrolling_ended, Some(1));
    let entry = added.entry;
    let second = world.admin().add(&registration(vec![other_program()])).await.unwrap();
    assert_eq!(second.enrolling_ended, None);
    world.admin().remove(second.entry.id).await.unwrap();
    assert!(matches!(next_ids(&mut stream).await, Err(WorkloadApiError::NoIdentityIssued)));
    let refused = world.source(WORKER).await.unwrap_err();
    assert!(matches!(refused, IdentityError::EnrollingEnded { .. }), "{refused}");

    // Neither a restart nor the removal of the last entry brings it back.
    let world = world.restart().await;
    assert_eq!(world.admin().list().await.unwrap(), std::slice::from_ref(&entry));
    world.admin().remove(entry.id).await.unwrap();
    let world = world.restart().await;
    assert_eq!(world.admin().list().await.unwrap(), []);
    let refused = world.source(WORKER).await.unwrap_err();
    let text = refused.to_string();
    let (socket, uid, program) = (world.socket().display(), our_uid(), our_program());
    let command = format!(
        "`convoke identity entry add --socket {socket} --spiffe-id {WORKER} --selector {uid} \
         --selector {program}`"
    );
    assert!(text.contains(&command) && text.contains("`enrolling-ended`"), "{text}");
    world.stop().await;
}

#[tokio::test]
async fn an_agent_takes_what_is_registered_for_it_and_survives_a_restart() {
    let world = World::start().await;
    world.entry(CALLER, &[our_uid()]).await;
    world.entry(WORKER, &[our_program()]).await;
    let source = world.source(WORKER).await.unwrap();
    assert_eq!(source.current().spiffe_id(), &id(WORKER));
    let (first, mut changes) = (source.current(), source.changes());
    let world = world.restart().await;
    changes.changed().await.unwrap();
    assert_ne!(source.current().chain(), first.chain());
    world.stop().await;
}

#[tokio::test]
async fn an_entry_s_ttl_is_that_of_its_svid() {
    let world = World::start().await;
    let selectors = vec![our_uid()];
    let ttl = Some(Duration::from_secs(100));
    let asked = Registration { spiffe_id: id(WORKER), selectors, ttl };
    assert_eq!(world.admin().add(&asked).await.unwrap().entry.registration, asked);
    let before = std::time::SystemTime::now();
    let source = world.source(WORKER).await.unwrap();
    let since_epoch = before.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let life = source.current().not_after().0 / 1000 - since_epoch.as_secs();
    assert!((99..=130).contains(&life), "{life}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_entry_is_refused_with_its_reason() {
    let world = World::start().await;
    let check = async |registration: Registration, kind: Refusal, part: &str| {
        let error = world.admin().add(&registration).await.unwrap_err();
        assert!(
            matches!(&error, AdminError::Refused { kind: found, .. } if *found == kind),
            "{error:?}"
        );
        assert!(error.to_string().contains(part), "{error}");
    };
    let good = || Registration { spiffe_id: id(WORKER), selectors: vec![our_uid()], ttl: None };
    let foreign = id("spiffe://other.org/worker");
    check(Registration { spiffe_id: foreign, ..good() }, Refusal::Invalid, "`example.org`").await;
    check(Registration { selectors: vec![], ..good() }, Refusal::Invalid, "selectors").await;
    let ttl = Some(Duration::from_secs(1));
    check(Registration { ttl, ..good() }, Refusal::Invalid, "2 to 7884000").await;
    let link = world.dir.path().canonicalize().unwrap().join("link");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    let selectors = vec![Selector::Path(link)];
    check(Registration { selectors, ..good() }, Refusal::Invalid, "is a link").await;
    let long = Selector::Path(format!("/{}", "a".repeat(1000)).into());
    let selectors = (0..20).flat_map(|uid| [Selector::Uid(uid), long.clone()]).collect();
    check(Registration { selectors, ..good() }, Refusal::Invalid, "body").await;
    // None of it was an entry.
    world.source(WORKER).await.unwrap();

    world.admin().add(&good()).await.unwrap();
    check(good(), Refusal::Exists, "entry 1 says the same").await;
    let error = world.admin().remove(7).await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { kind: Refusal::NotFound, .. }), "{error:?}");
    let admin = world.admin();
    world.stop().await;
    assert!(matches!(admin.list().await, Err(AdminError::Unreachable { .. })));
}
