//! X.509-SVIDs and the bundles that they are checked with.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use bytes::Bytes;
use tonic::Status;

use super::super::messages::{
    X509BundlesRequest, X509BundlesResponse, X509Svid, X509SvidRequest, X509SvidResponse,
};
use super::super::{Identity, error};
use super::Caller;
use super::push::Push;

/// The SVIDs of the caller.
#[derive(Clone, Copy)]
pub(super) struct Svids;

/// The bundles, which are public, so they need no identity.
#[derive(Clone, Copy)]
pub(super) struct Bundles;

impl Push for Svids {
    type Request = X509SvidRequest;
    type Message = X509SvidResponse;
    type Basis = (Vec<Identity>, Bytes);

    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status> {
        Ok((caller.identities()?, caller.shared.authority.bundle()))
    }

    fn message(
        self,
        caller: &Caller,
        (identities, bundle): &Self::Basis,
        now: SystemTime,
    ) -> Result<(X509SvidResponse, Option<SystemTime>), Status> {
        let authority = &caller.shared.authority;
        let mut due: Option<SystemTime> = None;
        let svids = identities.iter().map(|Identity { spiffe_id, ttl }| {
            let svid = authority.issue(spiffe_id, *ttl, now).map_err(|error| {
                tracing::error!(%spiffe_id, error = %error::chain(&error), "SVID not made");
                Status::internal("the SVID could not be made")
            })?;
            // All are replaced when the first one has to be.
            let life = svid.ends.duration_since(now).unwrap_or_default();
            let renewal = now + authority.svid_renewal(life);
            due = Some(due.map_or(renewal, |due| due.min(renewal)));
            Ok(X509Svid {
                spiffe_id: spiffe_id.as_str().to_owned(),
                x509_svid: svid.certificate,
                x509_svid_key: svid.key,
                bundle: bundle.clone(),
                hint: String::new(),
            })
        });
        let svids = svids.collect::<Result<_, Status>>()?;
        let federated_bundles = federated(caller);
        Ok((X509SvidResponse { svids, crl: Vec::new(), federated_bundles }, due))
    }
}

impl Push for Bundles {
    type Request = X509BundlesRequest;
    type Message = X509BundlesResponse;
    type Basis = Bytes;

    fn basis(self, caller: &Caller) -> Result<Bytes, Status> {
        Ok(caller.shared.authority.bundle())
    }

    fn message(
        self,
        caller: &Caller,
        bundle: &Bytes,
        _: SystemTime,
    ) -> Result<(X509BundlesResponse, Option<SystemTime>), Status> {
        let mut bundles = federated(caller);
        bundles.insert(caller.shared.authority.trust_domain().uri(), bundle.to_vec());
        Ok((X509BundlesResponse { crl: Vec::new(), bundles }, None))
    }
}

/// The bundles of the other trust domains. They are read when the issuer starts and do not change.
fn federated(caller: &Caller) -> HashMap<String, Vec<u8>> {
    let federated: &BTreeMap<_, _> = &caller.shared.federated;
    federated.iter().map(|(domain, bundle)| (domain.uri(), bundle.x509.to_vec())).collect()
}
