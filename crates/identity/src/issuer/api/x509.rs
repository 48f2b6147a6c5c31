//! X.509-SVIDs and the bundles that they are checked with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tonic::Status;

use super::super::federated::Snapshot;
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
    type Basis = (Vec<Identity>, Bytes, Arc<Snapshot>);

    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status> {
        let bundles = (caller.shared.authority.bundle(), caller.shared.federated.current());
        Ok((caller.identities()?, bundles.0, bundles.1))
    }

    fn message(
        self,
        caller: &Caller,
        (identities, bundle, federated): &Self::Basis,
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
        let federated_bundles = der(federated);
        Ok((X509SvidResponse { svids, crl: Vec::new(), federated_bundles }, due))
    }
}

impl Push for Bundles {
    type Request = X509BundlesRequest;
    type Message = X509BundlesResponse;
    type Basis = (Bytes, Arc<Snapshot>);

    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status> {
        Ok((caller.shared.authority.bundle(), caller.shared.federated.current()))
    }

    fn message(
        self,
        caller: &Caller,
        (bundle, federated): &Self::Basis,
        _: SystemTime,
    ) -> Result<(X509BundlesResponse, Option<SystemTime>), Status> {
        let mut bundles = der(federated);
        bundles.insert(caller.shared.authority.trust_domain().uri(), bundle.to_vec());
        Ok((X509BundlesResponse { crl: Vec::new(), bundles }, None))
    }
}

/// The bundles of the other trust domains.
fn der(federated: &Snapshot) -> HashMap<String, Vec<u8>> {
    let bundles = federated.bundles.iter();
    bundles.map(|(domain, bundle)| (domain.uri(), bundle.x509.to_vec())).collect()
}
