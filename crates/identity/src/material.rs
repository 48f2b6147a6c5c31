//! One state of an identity: certificate chain, key and roots, swapped as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use convoke_model::{SpiffeId, TrustDomain, UnixMillis};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use zeroize::Zeroizing;

use crate::pem_words::pem_words;
use crate::profile::{self, ProfileError};

/// Most certificates of one chain or one bundle.
const CERTIFICATES_MAX: usize = 128;

/// An X.509-SVID with its key, and the roots of every trust domain that is trusted beside it.
///
/// It never changes. A rotation makes a new one with a higher revision, so whoever holds one holds
/// parts that belong together.
pub struct Material {
    spiffe_id: SpiffeId,
    certified: Arc<CertifiedKey>,
    not_after: UnixMillis,
    roots: BTreeMap<TrustDomain, Roots>,
    revision: u64,
    /// The revision since which each trusted domain has lost no root.
    trusted_since: BTreeMap<TrustDomain, u64>,
}

/// The roots of one trust domain.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Whose roots these are; they vouch for no other domain.
    pub trust_domain: TrustDomain,
    /// The roots. None at all means that nobody of the domain is trusted.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Why certificates, key and roots do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// No certificate.
    #[error("the certificate chain of `{spiffe_id}` is empty")]
    NoCertificate {
        /// Whose chain it should have been.
        spiffe_id: SpiffeId,
    },
    /// More certificates than one chain or bundle may have.
    #[error("more than {max} certificates in one chain or bundle")]
    TooMany {
        /// The limit that was passed.
        max: usize,
    },
    /// The first certificate is not an X.509-SVID.
    #[error("the certificate for `{spiffe_id}` is not an X.509-SVID")]
    Profile {
        /// Whose certificate it should have been.
        spiffe_id: SpiffeId,
        /// Which rule it breaks.
        source: ProfileError,
    },
    /// The first certificate belongs to somebody else.
    #[error("the certificate is of `{found}`, not of `{expected}`")]
    WrongId {
        /// Whose certificate it should have been.
        expected: SpiffeId,
        /// Whose it is.
        found: SpiffeId,
    },
    /// The key cannot be used, or is not the certificate's.
    #[error("the private key of `{spiffe_id}` does not fit its certificate")]
    Key {
        /// Whose key it should have been.
        spiffe_id: SpiffeId,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// A root cannot be read.
    #[error("a root of trust domain `{trust_domain}` cannot be read")]
    Root {
        /// Whose root it should have been.
        trust_domain: TrustDomain,
        /// What the verifier said.
        source: webpki::Error,
    },
    /// A root that does not say that it is an authority's.
    #[error("a root of trust domain `{0}` does not say `CA:TRUE`")]
    NoAuthority(TrustDomain),
    /// There are no roots for the identity's own trust domain.
    #[error("no root of the own trust domain `{0}`")]
    NoOwnRoot(TrustDomain),
    /// A text is not PEM, or does not hold what it should.
    #[error("{what} is not PEM with what it should hold: {why}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Material {
    /// Puts the parts of an identity together: a chain whose first certificate is the SVID of
    /// `spiffe_id`, its key, and bundles, among them that of its own trust domain. Two bundles of
    /// one domain are joined.
    ///
    /// Whether the SVID is valid now is not looked at: TLS asks at every handshake.
    ///
    /// # Errors
    ///
    /// A [`MaterialError`] when the parts cannot be read or do not belong together.
    pub fn from_der(
        spiffe_id: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundles: impl IntoIterator<Item = Bundle>,
    ) -> Result<Self, MaterialError> {
        // The signer has a copy of its own; this one is overwritten when it goes, on every path.
        let key = Zeroizing::new(key);
        let Some(leaf) = chain.first() else {
            return Err(MaterialError::NoCertificate { spiffe_id });
        };
        if chain.len() > CERTIFICATES_MAX {
            return Err(MaterialError::TooMany { max: CERTIFICATES_MAX });
        }
        let svid = profile::read(leaf)
            .map_err(|source| MaterialError::Profile { spiffe_id: spiffe_id.clone(), source })?;
        if svid.spiffe_id != spiffe_id {
            return Err(MaterialError::WrongId { expected: spiffe_id, found: svid.spiffe_id });
        }
        let certified = any_supported_type(&key)
            .map(|signer| CertifiedKey::new(chain, signer))
            .and_then(|certified| certified.keys_match().map(|()| certified))
            .map_err(|source| MaterialError::Key { spiffe_id: spiffe_id.clone(), source })?;
        let own = spiffe_id.trust_domain();
        let roots = roots_of(bundles, &own)?;
        if roots.get(&own).is_none_or(|roots| roots.anchors.is_empty()) {
            return Err(MaterialError::NoOwnRoot(own));
        }
        Ok(Self {
            spiffe_id,
            certified: Arc::new(certified),
            not_after: svid.not_after,
            roots,
            revision: 0,
            trusted_since: BTreeMap::new(),
        })
    }

    /// As [`Material::from_der`], of PEM texts: the chain, the key, and the roots by trust domain.
    ///
    /// # Errors
    ///
    /// As [`Material::from_der`], and [`MaterialError::Pem`].
    pub fn from_pem(
        spiffe_id: SpiffeId,
        chain: &[u8],
        key: &[u8],
        bundles: &[(TrustDomain, &[u8])],
    ) -> Result<Self, MaterialError> {
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| MaterialError::Pem { what: "private key", why: pem_words(&error) })?;
        let bundles = bundles
            .iter()
            .map(|(trust_domain, roots)| {
                let authorities = certificates("bundle", roots)?;
                Ok(Bundle { trust_domain: trust_domain.clone(), authorities })
            })
            .collect::<Result<Vec<_>, MaterialError>>()?;
        Self::from_der(spiffe_id, certificates("certificate chain", chain)?, key, bundles)
    }

    /// Who this is.
    #[must_use]
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The SVID and the certificates above it, as they are sent to a peer.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The first instant at which the SVID is valid.
    #[must_use]
    pub fn not_before(&self) -> UnixMillis {
        // The chain has a leaf, which was read when this was made.
        self.chain().first().and_then(profile::not_before).unwrap_or(UnixMillis(0))
    }

    /// The last instant at which the SVID is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// Counts the swaps of its source; a pool of connections is keyed by it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The trust domains that have a bundle here, in order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.roots.keys()
    }

    /// The same identity, trusting in addition what `other` trusts of its own trust domain.
    ///
    /// Trust goes one way: `other`'s domain does not come to trust this one by it.
    #[must_use]
    pub fn also_trusting(&self, other: &Self) -> Self {
        let mut roots = self.roots.clone();
        let domain = other.spiffe_id.trust_domain();
        let others = other.roots.get(&domain).cloned().unwrap_or_default();
        let joined = roots.entry(domain).or_default();
        joined.anchors.extend(others.anchors);
        joined.not_after.extend(others.not_after);
        Self {
            spiffe_id: self.spiffe_id.clone(),
            certified: Arc::clone(&self.certified),
            not_after: self.not_after,
            roots,
            revision: 0,
            trusted_since: BTreeMap::new(),
        }
    }

    /// Whether this is the same certificate and the same trust, whatever the revisions are. The key
    /// is the same too, since it is the certificate's.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.chain() == other.chain() && self.roots == other.roots
    }

    /// Whether there is a root for `trust_domain`.
    #[must_use]
    pub fn trusts(&self, trust_domain: &TrustDomain) -> bool {
        self.roots.get(trust_domain).is_some_and(|roots| !roots.anchors.is_empty())
    }

    /// Whether every root that `earlier` trusts is trusted here too, each for its trust domain.
    #[must_use]
    pub fn keeps_roots_of(&self, earlier: &Self) -> bool {
        earlier.roots.iter().all(|(domain, roots)| self.has_roots(domain, roots))
    }

    fn has_roots(&self, trust_domain: &TrustDomain, roots: &Roots) -> bool {
        let kept = self.roots.get(trust_domain).map_or(&[][..], Roots::anchors);
        roots.anchors.iter().all(|root| kept.contains(root))
    }

    /// Since which revision `trust_domain` is trusted without a break; `None` if it is not. A root
    /// that is taken away is a break: what somebody said who was let in by it is no longer vouched
    /// for, whether the domain comes back or has others.
    #[must_use]
    pub fn trusted_since(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.trusted_since.get(trust_domain).copied()
    }

    /// This as the first state of a source.
    pub(crate) fn first(self) -> Self {
        self.numbered(1, |_, _| None)
    }

    /// This as the state of a source that follows `earlier`.
    pub(crate) fn after(self, earlier: &Self) -> Self {
        self.numbered(earlier.revision + 1, |material, domain| {
            let roots = earlier.roots.get(domain)?;
            let since = earlier.trusted_since(domain)?;
            material.has_roots(domain, roots).then_some(since)
        })
    }

    fn numbered(
        mut self,
        revision: u64,
        since: impl Fn(&Self, &TrustDomain) -> Option<u64>,
    ) -> Self {
        let trusted = self.roots.keys().filter(|domain| self.trusts(domain));
        self.trusted_since = trusted
            .map(|domain| (domain.clone(), since(&self, domain).unwrap_or(revision)))
            .collect();
        self.revision = revision;
        self
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    pub(crate) fn roots(&self, trust_domain: &TrustDomain) -> Option<&Roots> {
        self.roots.get(trust_domain)
    }

    pub(crate) fn is_expired(&self, now: UnixTime) -> bool {
        now.as_secs() > self.not_after.0 / 1000
    }
}

/// The roots of one trust domain, ready for path building.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// The last second at which each is valid, in the same order. An anchor does not say.
    not_after: Vec<u64>,
}

impl Roots {
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether `anchor`, which is one of these, is no longer valid.
    pub(crate) fn has_expired(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> bool {
        let at = self.anchors.iter().position(|own| own == anchor);
        at.and_then(|at| self.not_after.get(at)).is_none_or(|end| now.as_secs() > *end)
    }

    fn add(&mut self, trust_domain: &TrustDomain, root: &[u8]) -> Result<(), MaterialError> {
        if self.anchors.len() == CERTIFICATES_MAX {
            return Err(MaterialError::TooMany { max: CERTIFICATES_MAX });
        }
        let root = CertificateDer::from(root);
        let unreadable =
            |source| MaterialError::Root { trust_domain: trust_domain.clone(), source };
        let anchor = webpki::anchor_from_trusted_cert(&root).map_err(unreadable)?;
        // A certificate that may not sign would vouch for itself.
        let not_after = profile::read_root(&root)
            .ok()
            .flatten()
            .ok_or_else(|| MaterialError::NoAuthority(trust_domain.clone()))?;
        self.anchors.push(anchor.to_owned());
        self.not_after.push(not_after);
        Ok(())
    }
}

/// The roots by trust domain. What another domain publishes must not be able to end our own
/// identity, so a root of another domain that cannot be used is left out, and said.
fn roots_of(
    bundles: impl IntoIterator<Item = Bundle>,
    own: &TrustDomain,
) -> Result<BTreeMap<TrustDomain, Roots>, MaterialError> {
    let mut roots = BTreeMap::<TrustDomain, Roots>::new();
    for Bundle { trust_domain, authorities } in bundles {
        let of_domain = roots.entry(trust_domain.clone()).or_default();
        for root in &authorities {
            match of_domain.add(&trust_domain, root) {
                Err(error) if trust_domain != *own => {
                    tracing::warn!(%trust_domain, %error, "root is not used");
                }
                added => added?,
            }
        }
    }
    Ok(roots)
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    CertificateDer::pem_slice_iter(pem)
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| MaterialError::Pem { what, why: pem_words(&error) })
}

impl fmt::Debug for Material {
    /// Everything but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("spiffe_id", &self.spiffe_id)
            .field("not_after", &self.not_after)
            .field("trust_domains", &self.roots.keys().collect::<Vec<_>>())
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::{Authority, pem};

    const AGENT: &str = "spiffe://example.org/agent";

    /// Whether eight bytes in a row of the secret number in `key` are in `text`, in hexadecimal, in
    /// base64 or as numbers. The rest of it, which has the public key too, is no secret.
    fn shows(text: &str, key: &[u8]) -> bool {
        let text = text.replace(['\n', '\r'], "");
        let at = key.windows(2).position(|header| *header == [4, 32]).unwrap() + 2;
        let base64 = pem("", key).replace('\n', "").replace("-----BEGIN -----", "");
        let base64 = &base64.as_bytes()[at * 4 / 3 + 1..(at + 32) * 4 / 3 - 1];
        let in_base64 =
            base64.windows(11).any(|piece| text.contains(str::from_utf8(piece).unwrap()));
        let spelled = |bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
            [hex, numbers.join(", ")]
        };
        let text = text.to_lowercase();
        in_base64
            || key[at..at + 32].windows(8).flat_map(spelled).any(|piece| text.contains(&piece))
    }

    #[test]
    fn trust_counts_from_where_it_was_last_broken() {
        let (ours, older, newer) = (
            Authority::new("example.org"),
            Authority::new("partner.example"),
            Authority::new("partner.example"),
        );
        let (own, partner) = (ours.trust_domain.clone(), older.trust_domain.clone());
        let leaf = ours.leaf(AGENT, |_| {});
        let trusting = |roots: &[&Authority]| {
            let bundle = |trust_domain: &TrustDomain, authorities: &[&Authority]| Bundle {
                trust_domain: trust_domain.clone(),
                authorities: authorities.iter().map(|one| one.certificate.clone()).collect(),
            };
            let bundles = [bundle(&own, &[&ours]), bundle(&partner, roots)];
            let (id, chain) = (SpiffeId::parse(AGENT).unwrap(), vec![leaf.certificate.clone()]);
            Material::from_der(id, chain, leaf.key.clone_key(), bundles).unwrap()
        };
        let source = crate::IdentitySource::from_material(trusting(&[]));
        let check = |roots: &[&Authority], expected: Option<u64>| {
            source.publish(trusting(roots)).unwrap();
            let now = source.current();
            assert_eq!(now.trusted_since(&partner), expected);
            assert_eq!(now.trusted_since(&own), Some(1));
        };
        assert_eq!(source.current().trusted_since(&partner), None);
        check(&[&older], Some(2));
        check(&[&older], Some(2));
        check(&[&older, &newer], Some(2));
        // The one that may have let somebody in is gone.
        check(&[&newer], Some(5));
        check(&[], None);
        check(&[&newer], Some(7));
    }

    #[test]
    fn a_key_is_never_shown() {
        let (ours, other) = (Authority::new("example.org"), Authority::new("example.org"));
        let (leaf, another) = (ours.leaf(AGENT, |_| {}), other.leaf(AGENT, |_| {}));
        let key = leaf.key.secret_der().to_vec();
        assert!(shows(&format!("{key:?}"), &key) && shows(&pem("PRIVATE KEY", &key), &key));

        let text = pem("PRIVATE KEY", &key);
        let (id, domain) = (SpiffeId::parse(AGENT).unwrap(), ours.trust_domain.clone());
        let root = pem("CERTIFICATE", &ours.certificate);
        let from_pem = |chain: &str, key: &str| {
            let bundles = [(domain.clone(), root.as_bytes())];
            Material::from_pem(id.clone(), chain.as_bytes(), key.as_bytes(), &bundles)
        };
        let good = from_pem(&pem("CERTIFICATE", &leaf.certificate), &text).unwrap();
        let source = crate::IdentitySource::from_material(good);
        let held = source.current();
        let cut = &text[..text.len() / 2];
        let errors = [
            from_pem(&pem("CERTIFICATE", &another.certificate), &text).unwrap_err(),
            from_pem(&pem("CERTIFICATE", &leaf.certificate), cut).unwrap_err(),
            from_pem(&text, &text).unwrap_err(),
            from_pem("", &text).unwrap_err(),
        ];
        let mut shown = format!("{held:?} {held:#?} {source:?} {:?}", held.certified());
        for error in &errors {
            shown.push_str(&format!("{error} {error:?} {}", crate::source::chain(error)));
        }
        assert!(!shows(&shown, &key), "{shown}");
    }

    #[test]
    fn what_another_domain_publishes_does_not_end_our_identity() {
        let (ours, other) = (Authority::new("example.org"), Authority::new("other.org"));
        let no_authority = ours.leaf(AGENT, |_| {}).certificate;
        for bad in [no_authority, CertificateDer::from(vec![0x30, 0x00])] {
            let build = |domain: &TrustDomain| {
                let leaf = ours.leaf(AGENT, |_| {});
                let authorities = vec![bad.clone()];
                let spoiled = Bundle { trust_domain: domain.clone(), authorities };
                let bundles = [ours.bundle(), other.bundle(), spoiled];
                let id = SpiffeId::parse(AGENT).unwrap();
                Material::from_der(id, vec![leaf.certificate], leaf.key, bundles)
            };
            let kept = build(&other.trust_domain).unwrap();
            assert_eq!(kept.roots(&other.trust_domain).unwrap().anchors().len(), 1);
            assert!(build(&ours.trust_domain).is_err());
        }
    }
}
