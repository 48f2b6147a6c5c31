//! The messages of the Workload API that the issuer serves, as `proto/workload.proto` has them.

use std::collections::HashMap;

use bytes::Bytes;

/// The path of [`X509SvidRequest`]s.
pub(super) const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// The path of [`X509BundlesRequest`]s.
pub(super) const FETCH_X509_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct X509SvidRequest {}

/// It has no `Debug` of its own making, because of the keys in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) svids: Vec<X509Svid>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) crl: Vec<Bytes>,
    #[prost(map = "string, bytes", tag = "3")]
    pub(super) federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(super) spiffe_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) x509_svid: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) x509_svid_key: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) bundle: Bytes,
    #[prost(string, tag = "5")]
    pub(super) hint: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct X509BundlesRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct X509BundlesResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) crl: Vec<Bytes>,
    #[prost(map = "string, bytes", tag = "2")]
    pub(super) bundles: HashMap<String, Vec<u8>>,
}

impl std::fmt::Debug for X509SvidResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.svids).finish()
    }
}

impl std::fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.spiffe_id)
    }
}
