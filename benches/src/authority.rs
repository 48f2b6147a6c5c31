//! Certificates that are good as SVIDs and also by rustls' own rules, so that both verifiers can
//! be given the same.

use std::path::Path;

use anyhow::Result;
use convoke_identity::{Bundle, Material};
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The name that rustls' own verifier looks for.
pub(crate) const HOST: &str = "localhost";

/// An authority that lives as long as the value.
pub(crate) struct Authority {
    trust_domain: TrustDomain,
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key: ECDSA on P-256, as the embedded issuer makes them.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Result<Self> {
        let trust_domain = TrustDomain::parse(trust_domain)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(trust_domain.uri().as_str().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self { trust_domain, root, issuer: Issuer::new(params, key) })
    }

    /// A certificate for `id` that is also good for [`HOST`].
    pub(crate) fn leaf(&self, id: &SpiffeId) -> Result<Leaf> {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(id.as_str().try_into()?), SanType::DnsName(HOST.try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Leaf { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// `leaf` as an identity of ours that trusts this authority.
    pub(crate) fn material(&self, id: &SpiffeId, leaf: &Leaf) -> Result<Material> {
        let bundle = Bundle {
            trust_domain: self.trust_domain.clone(),
            authorities: vec![self.root.clone()],
        };
        let chain = vec![leaf.certificate.clone()];
        Ok(Material::from_der(id.clone(), chain, leaf.key.clone_key(), [bundle])?)
    }
}

/// The files of a saved identity: certificate, key, and the root of whoever it talks to.
const FILES: [&str; 3] = ["certificate.der", "key.der", "root.der"];

impl Leaf {
    /// Writes the certificate, its key and `root` into `directory`, for another process.
    pub(crate) fn save(&self, root: &CertificateDer<'_>, directory: &Path) -> Result<()> {
        let contents: [&[u8]; 3] = [&self.certificate, self.key.secret_der(), root];
        for (name, content) in FILES.into_iter().zip(contents) {
            std::fs::write(directory.join(name), content)?;
        }
        Ok(())
    }

    /// Reads what [`Leaf::save`] wrote.
    pub(crate) fn load(directory: &Path) -> Result<(Self, CertificateDer<'static>)> {
        let [certificate, key, root] = FILES.map(|name| std::fs::read(directory.join(name)));
        let key = PrivatePkcs8KeyDer::from(key?).into();
        Ok((Self { certificate: certificate?.into(), key }, root?.into()))
    }
}
