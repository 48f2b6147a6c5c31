//! The key with which an issuer signs JWT-SVIDs.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convoke_model::SpiffeId;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use zeroize::Zeroizing;

/// A P-256 key with a name made of its public half. It is wiped from memory when dropped.
#[derive(Debug)]
pub(crate) struct SigningKey {
    key: EncodingKey,
    kid: String,
    x: String,
    y: String,
}

/// One key of a JWK set, with its members in the order in which they are written.
#[derive(Debug, Serialize)]
pub(crate) struct Jwk<'a> {
    kty: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: &'a str,
    crv: &'static str,
    x: &'a str,
    y: &'a str,
}

/// What a token says, and no more. A `jti` is permitted, but no validator has to look at it, so it
/// would only seem to keep tokens from being used twice, and cost each who does look a memory of
/// them. A short life and one audience bound that instead. Source: SPIFFE JWT-SVID §3 and §7.1
/// (replay protection).
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a [String],
    exp: u64,
    iat: u64,
}

impl SigningKey {
    /// The signer for `key`; `None` if that is not a key of the curve P-256.
    pub(crate) fn of(key: &KeyPair) -> Option<Self> {
        // The uncompressed point: 4, then the two coordinates. Source: SEC 1 §2.3.3.
        let point = key.public_key_raw();
        let (x, y) = match point.split_first() {
            Some((4, coordinates)) if coordinates.len() == 64 => coordinates.split_at(32),
            _ => return None,
        };
        let kid = CertificateParams::default().key_identifier(key);
        let pkcs8 = Zeroizing::new(key.serialize_der());
        Some(Self {
            key: EncodingKey::from_ec_der(&pkcs8),
            kid: URL_SAFE_NO_PAD.encode(kid),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// The public half.
    pub(crate) fn jwk(&self) -> Jwk<'_> {
        let Self { kid, x, y, .. } = self;
        Jwk { kty: "EC", usage: "jwt-svid", kid, crv: "P-256", x, y }
    }

    /// Makes a token for `spiffe_id` that is good for `audience` from `now` on for `ttl`, both cut
    /// to whole seconds.
    pub(crate) fn sign(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[String],
        now: SystemTime,
        ttl: Duration,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let iat = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let exp = iat.saturating_add(ttl.as_secs());
        let claims = Claims { sub: spiffe_id.as_str(), aud: audience, exp, iat };
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}
