//! An authority that lives in memory and ends with the test.

use std::sync::atomic::{AtomicI32, Ordering};

use convoke_identity::{IdentitySource, Material, MaterialError};
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// The year at whose beginning the first certificate ends.
const YEAR_MIN: i32 = 2100;

/// Years after which the count begins anew, within what a certificate can say.
const YEARS: i32 = 7000;

/// The authority of one trust domain. Its certificates outlive any test, and each is good for a year
/// longer than the one before, so that a renewal can be seen.
pub(crate) struct Authority {
    trust_domain: TrustDomain,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    made: AtomicI32,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("a certificate could not be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error(transparent)]
    Material(#[from] MaterialError),
}

impl Authority {
    pub(crate) fn new(trust_domain: &TrustDomain) -> Result<Self, AuthorityError> {
        let mut params = params(&trust_domain.uri())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let trust_domain = trust_domain.clone();
        let issuer = Issuer::new(params, key);
        Ok(Self { trust_domain, certificate, issuer, made: AtomicI32::new(0) })
    }

    /// The identity `id`, which trusts its own domain alone.
    pub(crate) fn identity(&self, id: &SpiffeId) -> Result<IdentitySource, AuthorityError> {
        Ok(IdentitySource::from_material(self.material(id)?))
    }

    /// A new certificate of `id`, with its key and its roots.
    pub(crate) fn material(&self, id: &SpiffeId) -> Result<Material, AuthorityError> {
        let mut params = params(id.as_str())?;
        params.is_ca = IsCa::ExplicitNoCa;
        let year = YEAR_MIN + self.made.fetch_add(1, Ordering::Relaxed) % YEARS;
        params.not_after = date_time_ymd(year, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Material::from_pem(
            id.clone(),
            certificate.as_bytes(),
            key.as_bytes(),
            &[(self.trust_domain.clone(), self.certificate.as_bytes())],
        )?)
    }
}

fn params(uri: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}
