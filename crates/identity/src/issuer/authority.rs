//! The certificate authority of one trust domain, in generations that follow each other.
//!
//! Half-way through a generation's life the next one is made and put into the bundle beside it;
//! when three quarters have passed it takes over. By then everybody has known it for a quarter of a
//! life. The old one stays in the bundle until it ends, which is after everything that it signed.
//! All of it follows from the certificates' dates, so an issuer that was away goes on where it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use convoke_model::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::data_dir::DataDir;
use super::error::IssuerError;
use super::generation::{Generation, Svid, parse_pem};
use super::{
    CA_TTL_MAX, IssuerConfig, JWT_SVID_TTL_MAX, JWT_SVID_TTL_MIN, SVID_RENEW_AFTER_MIN,
    SVID_TTL_MIN,
};
use crate::jwt::JwtBundle;

/// All generations in one file, so that one rename replaces them together.
const FILE: &str = "authority.pem";

/// Largest authority file that is read, in bytes. One generation has about 1,300.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// How many times an SVID's life has to fit into the authority's: after the hand-over, a quarter
/// of a generation's life is left for what it signed.
pub(super) const CA_PER_SVID: u32 = 4;

/// The authority of one trust domain.
#[derive(Debug)]
pub(super) struct Authority {
    trust_domain: TrustDomain,
    svid_ttl: Duration,
    svid_renew_after: Option<Duration>,
    jwt_svid_ttl: Duration,
    ca_ttl: Duration,
    dir: Arc<DataDir>,
    now_in_use: ArcSwap<Generations>,
    /// Held while generations are replaced.
    tending: Mutex<()>,
}

/// The generations that there are, oldest first; never empty.
#[derive(Debug)]
struct Generations {
    all: Vec<Arc<Generation>>,
    /// Their certificates, one after another, DER.
    bundle: Bytes,
    /// Their keys of tokens, as a JWK set.
    jwks: Bytes,
    jwt_bundle: Arc<JwtBundle>,
}

impl Authority {
    /// Reads the generations, or makes the first one; makes the next one if it is due.
    pub(super) fn open(
        config: &IssuerConfig,
        dir: Arc<DataDir>,
        now: SystemTime,
    ) -> Result<Self, IssuerError> {
        let IssuerConfig { trust_domain, svid_ttl, ca_ttl, jwt_svid_ttl, .. } = config;
        let (mut all, rewrite) = match dir.read(FILE, FILE_BYTES_MAX)? {
            Some(pem) => parse_pem(&dir.file(FILE), &pem, trust_domain)?,
            None => (vec![Generation::make(trust_domain, *ca_ttl, now)?], true),
        };
        let all: Vec<_> = all.drain(..).map(Arc::new).collect();
        if rewrite {
            store(&dir, &all)?;
        }
        let authority = Self {
            trust_domain: trust_domain.clone(),
            svid_ttl: *svid_ttl,
            svid_renew_after: config.svid_renew_after,
            jwt_svid_ttl: *jwt_svid_ttl,
            ca_ttl: *ca_ttl,
            dir,
            now_in_use: ArcSwap::from_pointee(Generations::new(all)?),
            tending: Mutex::new(()),
        };
        authority.tend(now)?;
        Ok(authority)
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How long an SVID lives whose entry says nothing else.
    pub(super) fn svid_ttl(&self) -> Duration {
        self.svid_ttl
    }

    /// At which age an SVID that lives for `life` is replaced.
    pub(super) fn svid_renewal(&self, life: Duration) -> Duration {
        let half = life / 2;
        self.svid_renew_after.map_or(half, |after| after.min(half))
    }

    /// The longest life that an entry may give to its SVIDs.
    pub(super) fn svid_ttl_max(&self) -> Duration {
        self.ca_ttl / CA_PER_SVID
    }

    /// How often the generations need a look, so that none of their steps is late by much.
    pub(super) fn tending_interval(&self) -> Duration {
        self.ca_ttl / 64
    }

    /// The certificates of all generations, one after another, DER.
    pub(super) fn bundle(&self) -> Bytes {
        self.now_in_use.load().bundle.clone()
    }

    /// The keys of all generations' tokens, as a JWK set.
    pub(super) fn jwks(&self) -> Bytes {
        self.now_in_use.load().jwks.clone()
    }

    /// The same keys, ready for use.
    pub(super) fn jwt_bundle(&self) -> Arc<JwtBundle> {
        Arc::clone(&self.now_in_use.load().jwt_bundle)
    }

    /// Makes an SVID for `spiffe_id`, whose trust domain has been checked.
    pub(super) fn issue(
        &self,
        spiffe_id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Svid, IssuerError> {
        self.now_in_use.load().signing(now).issue(&self.trust_domain, spiffe_id, ttl, now)
    }

    /// Makes a token for `spiffe_id`, whose trust domain has been checked, and who is meant by it.
    pub(super) fn issue_jwt(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[String],
        now: SystemTime,
    ) -> Result<String, IssuerError> {
        let generations = self.now_in_use.load();
        let generation = generations.signing(now);
        let left = generation.ends.duration_since(now).map_err(|_| IssuerError::Ended)?;
        let ttl = self.jwt_svid_ttl.min(left);
        generation
            .jwt
            .sign(spiffe_id, audience, now, ttl)
            .map_err(|source| IssuerError::Jwt { source })
    }

    /// Makes the next generation if it is due and leaves out those that have ended, and says
    /// whether the bundle is now another one. If that fails, all stays as it was.
    pub(super) fn tend(&self, now: SystemTime) -> Result<bool, IssuerError> {
        let _tending = self.tending.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now_in_use.load();
        let mut all: Vec<_> =
            before.all.iter().filter(|generation| now < generation.ends).cloned().collect();
        let newest = before.all.last();
        if newest.is_none_or(|newest| now >= newest.prepare_next_at()) {
            all.push(Arc::new(Generation::make(&self.trust_domain, self.ca_ttl, now)?));
        } else if all.len() == before.all.len() {
            return Ok(false);
        }
        let generations = Generations::new(all)?;
        store(&self.dir, &generations.all)?;
        self.now_in_use.store(Arc::new(generations));
        Ok(true)
    }
}

impl Generations {
    fn new(all: Vec<Arc<Generation>>) -> Result<Self, IssuerError> {
        let mut bundle = BytesMut::new();
        for generation in &all {
            bundle.extend_from_slice(&generation.root);
        }
        let keys: Vec<_> = all.iter().map(|generation| generation.jwt.jwk()).collect();
        let unusable = |reason: String| IssuerError::JwtKeys { reason };
        let jwks = serde_json::to_vec(&serde_json::json!({ "keys": keys }))
            .map_err(|error| unusable(error.to_string()))?;
        let jwt_bundle =
            JwtBundle::from_jwks(&jwks).map_err(|error| unusable(error.to_string()))?;
        let (bundle, jwks) = (bundle.freeze(), Bytes::from(jwks));
        Ok(Self { all, bundle, jwks, jwt_bundle: Arc::new(jwt_bundle) })
    }

    /// The generation that signs: the newest one whose predecessor has handed over or ended.
    fn signing(&self, now: SystemTime) -> &Generation {
        let followed = self.all.windows(2).rev().find_map(|pair| match pair {
            [before, after] if now >= before.hand_over_at() => Some(after),
            _ => None,
        });
        followed.unwrap_or(&self.all[0])
    }
}

fn store(dir: &DataDir, all: &[Arc<Generation>]) -> Result<(), IssuerError> {
    // Room for all of it at once: a text that grows leaves copies of the keys behind.
    let mut pem = Zeroizing::new(String::with_capacity(4096 * all.len()));
    for generation in all {
        generation.write_pem(&mut pem);
    }
    dir.replace(FILE, pem.as_bytes())
}

/// Refuses lives that contradict each other.
pub(super) fn check_lives(config: &IssuerConfig) -> Result<(), IssuerError> {
    let IssuerConfig { svid_ttl, ca_ttl, jwt_svid_ttl, .. } = config;
    if *svid_ttl < SVID_TTL_MIN {
        return Err(IssuerError::SvidTtl { found: *svid_ttl, min: SVID_TTL_MIN });
    }
    if let Some(found) = config.svid_renew_after.filter(|after| *after < SVID_RENEW_AFTER_MIN) {
        return Err(IssuerError::SvidRenewal { found, min: SVID_RENEW_AFTER_MIN });
    }
    if ca_ttl.checked_div(CA_PER_SVID).is_none_or(|quarter| quarter < *svid_ttl)
        || *ca_ttl > CA_TTL_MAX
    {
        return Err(IssuerError::CaTtl { found: *ca_ttl, svid: *svid_ttl, max: CA_TTL_MAX });
    }
    if !(JWT_SVID_TTL_MIN..=JWT_SVID_TTL_MAX).contains(jwt_svid_ttl) {
        let (min, max) = (JWT_SVID_TTL_MIN, JWT_SVID_TTL_MAX);
        return Err(IssuerError::JwtSvidTtl { found: *jwt_svid_ttl, min, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
