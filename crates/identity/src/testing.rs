//! An authority for tests that can make certificates which the issuer never would.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::material::{Bundle, Material};

/// An authority of `trust_domain`; two of one domain have one name and two keys.
pub(crate) struct Authority {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let trust_domain = TrustDomain::parse(trust_domain).unwrap();
        let mut params = params(&trust_domain.uri());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { trust_domain, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let authorities = vec![self.certificate.clone()];
        Bundle { trust_domain: self.trust_domain.clone(), authorities }
    }

    /// A good SVID of `id`, spoiled by `change`.
    pub(crate) fn leaf(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(id);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Leaf { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// The identity `id` that trusts its own authority and those of `others`.
    pub(crate) fn material(&self, id: &str, others: &[&Self]) -> Material {
        self.material_of(id, others, self.leaf(id, |_| {}))
    }

    pub(crate) fn material_of(&self, id: &str, others: &[&Self], leaf: Leaf) -> Material {
        let bundles = others.iter().map(|other| other.bundle()).chain([self.bundle()]);
        let chain = vec![leaf.certificate];
        Material::from_der(SpiffeId::parse(id).unwrap(), chain, leaf.key, bundles).unwrap()
    }
}

/// `der` as a PEM text.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "test");
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    set_validity(&mut params, -3600, 3600);
    params
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

/// Collects the log lines of a test that runs on one thread, as `LEVEL message`.
#[derive(Clone, Default)]
pub(crate) struct Lines(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Lines {
    /// The lines from `INFO` upwards that have come so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let line = format!("{} {}", event.metadata().level(), message.0);
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
