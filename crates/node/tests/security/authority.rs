//! Authorities that make certificates of every kind, good ones and others.

use std::time::{Duration, SystemTime};

use convoke_identity::{IdentitySource, Material};
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// An authority of one trust domain.
pub(crate) struct Authority {
    pub(crate) domain: TrustDomain,
    /// Its root, as PEM.
    pub(crate) root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with those above it, and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Svid {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(domain: &str) -> Self {
        let domain = TrustDomain::parse(domain).unwrap();
        let (params, key) = (authority(&domain.uri()), KeyPair::generate().unwrap());
        let root = params.self_signed(&key).unwrap().pem();
        Self { domain, root, issuer: Issuer::new(params, key) }
    }

    /// An authority for `below`'s domain whose certificate this one has signed.
    pub(crate) fn cross_sign(&self, below: &str) -> Intermediate {
        let (params, key) = (authority(&format!("spiffe://{below}")), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Intermediate { certificate, issuer: Issuer::new(params, key) }
    }

    /// A good SVID of `id`.
    pub(crate) fn svid(&self, id: &str) -> Svid {
        self.svid_with(id, |_| {})
    }

    /// A good SVID of `id`, changed.
    pub(crate) fn svid_with(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        sign(id, &self.issuer, change)
    }

    /// Who presents `svid` as `id` and trusts this authority and `others`.
    pub(crate) fn source(&self, id: &str, svid: &Svid, others: &[&Self]) -> IdentitySource {
        IdentitySource::from_material(self.material(id, svid, others))
    }

    pub(crate) fn material(&self, id: &str, svid: &Svid, others: &[&Self]) -> Material {
        let bundles: Vec<_> = std::iter::once(&self)
            .chain(others)
            .map(|authority| (authority.domain.clone(), authority.root.as_bytes()))
            .collect();
        let (id, chain) = (SpiffeId::parse(id).unwrap(), svid.chain.as_bytes());
        Material::from_pem(id, chain, svid.key.as_bytes(), &bundles).unwrap()
    }
}

/// An authority under another one.
pub(crate) struct Intermediate {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Intermediate {
    pub(crate) fn svid(&self, id: &str) -> Svid {
        let mut svid = sign(id, &self.issuer, |_| {});
        svid.chain.push_str(&self.certificate);
        svid
    }
}

/// What says that it is `id` and is signed by itself.
pub(crate) fn self_signed(id: &str) -> Svid {
    let key = KeyPair::generate().unwrap();
    let certificate = leaf(id).self_signed(&key).unwrap();
    Svid { chain: certificate.pem(), key: key.serialize_pem() }
}

fn sign(
    id: &str,
    issuer: &Issuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> Svid {
    let key = KeyPair::generate().unwrap();
    let mut params = leaf(id);
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap();
    Svid { chain: certificate.pem(), key: key.serialize_pem() }
}

fn authority(uri: &str) -> CertificateParams {
    let mut params = params(uri);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(uri: &str) -> CertificateParams {
    let mut params = params(uri);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, uri);
    set_uris(&mut params, &[uri]);
    set_validity(&mut params, -3600, 3600);
    params
}

pub(crate) fn set_uris(params: &mut CertificateParams, uris: &[&str]) {
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
}

/// Valid from `from` to `to`, in seconds from now.
pub(crate) fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let at = |offset: i64| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(now.checked_add_signed(offset).unwrap())
    };
    (params.not_before, params.not_after) = (at(from), at(to));
}
