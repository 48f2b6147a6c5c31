//! JWT-SVIDs: tokens that say who their bearer is, to whoever a connection's certificate cannot.
//!
//! A token is believed only after everything about it was checked, in the order of what it costs:
//! length, form, header, the trust domain's key, the signature, and then the claims. The algorithm
//! is that of the stored key; what the token says of it must merely agree.

mod bundle;
mod sign;
mod strict;

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convoke_model::{SpiffeId, SpiffeIdError};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

pub use bundle::{JwtBundle, JwtBundleError};
pub(crate) use sign::SigningKey;

/// Longest token that is looked at, in bytes. One of ours has about 400.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Most audiences of a token that is made or believed.
pub const AUDIENCES_MAX: usize = 16;

/// Longest name of an audience, in bytes; a SPIFFE ID fits.
pub const AUDIENCE_BYTES_MAX: usize = 2048;

/// Longest name of a key, in bytes.
const KEY_ID_BYTES_MAX: usize = 64;

/// The largest second that a claim may name: above it, numbers of JSON are not exact everywhere.
/// Source: RFC 8259 §6.
const SECONDS_MAX: u64 = (1 << 53) - 1;

/// A token that was believed.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSvid {
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// The first instant at which it is not valid any more.
    pub expires_at: SystemTime,
    /// All that it claims, `sub`, `aud` and `exp` among it.
    pub claims: Map<String, Value>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Longer than is looked at.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of unpadded base64url with JSON objects in the first two.
    #[error("the token is not a signed JWT: {0}")]
    Form(&'static str),
    /// A header that a JWT-SVID does not have, or a forbidden value in one.
    #[error("the token's header is not a JWT-SVID's: {0}")]
    Header(&'static str),
    /// No bundle for the trust domain of its subject.
    #[error("no keys of trust domain `{trust_domain}`")]
    UnknownTrustDomain {
        /// The trust domain that the token names.
        trust_domain: String,
    },
    /// The trust domain has no such key.
    #[error("trust domain `{trust_domain}` has no key with this `kid`")]
    UnknownKey {
        /// The trust domain that the token names.
        trust_domain: String,
    },
    /// The signature is not by the key that the token names.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing, or of a wrong type or value.
    #[error("the token's claim `{claim}` is {problem}")]
    Claim {
        /// Which claim.
        claim: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The subject is not a workload's SPIFFE ID.
    #[error("the token's subject is not a workload's SPIFFE ID")]
    Subject(#[from] SpiffeIdError),
    /// It is past its end.
    #[error("the token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is meant for others.
    #[error("the token is not meant for this audience")]
    Audience,
}

/// Believes `token` at the instant `now`, if one of its audiences is `audience` and the key that it
/// names is in the bundle of its subject's trust domain, which `bundle_of` finds by name.
///
/// There is no allowance for clocks that differ. Source: JWT-SVID §2 to §4 and Appendix A.
///
/// # Errors
///
/// [`JwtError`] names the first rule that is broken; a caller from afar is best told nothing of it.
pub fn validate<'a>(
    token: &str,
    audience: &str,
    now: SystemTime,
    bundle_of: impl FnOnce(&str) -> Option<&'a JwtBundle>,
) -> Result<JwtSvid, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Form("no parts"))?;
    let (header, claims) = message.split_once('.').ok_or(JwtError::Form("too few parts"))?;
    if claims.contains('.') {
        return Err(JwtError::Form("too many parts"));
    }
    let header = strict::Header::parse(&decode(header)?)?;
    let claims = strict::claims(&decode(claims)?)?;
    let spiffe_id = SpiffeId::parse(text(&claims, "sub")?)?;
    let trust_domain = spiffe_id.trust_domain_str();
    let unknown = || trust_domain.to_owned();
    let bundle = bundle_of(trust_domain)
        .ok_or_else(|| JwtError::UnknownTrustDomain { trust_domain: unknown() })?;
    let key =
        bundle.key(&header.kid).ok_or_else(|| JwtError::UnknownKey { trust_domain: unknown() })?;
    // A failure to look at the signature at all is no reason to believe it.
    let verified =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, Algorithm::ES256);
    if !matches!(verified, Ok(true)) {
        return Err(JwtError::Signature);
    }
    let expires_at = at(required_seconds(&claims, "exp")?);
    if now >= expires_at {
        return Err(JwtError::Expired);
    }
    if seconds(&claims, "nbf")?.is_some_and(|from| now < at(from)) {
        return Err(JwtError::NotYetValid);
    }
    // It decides nothing, but what is there has to be what it should be.
    seconds(&claims, "iat")?;
    if !names_audience(&claims, audience)? {
        return Err(JwtError::Audience);
    }
    Ok(JwtSvid { spiffe_id, expires_at, claims })
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Form("a part is not base64url"))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn text<'a>(claims: &'a Map<String, Value>, claim: &'static str) -> Result<&'a str, JwtError> {
    match claims.get(claim) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(JwtError::Claim { claim, problem: "not a string" }),
        None => Err(JwtError::Claim { claim, problem: "missing" }),
    }
}

fn required_seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<u64, JwtError> {
    seconds(claims, claim)?.ok_or(JwtError::Claim { claim, problem: "missing" })
}

/// A claim that is there has to be a whole second; `null` is not the same as none.
fn seconds(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<u64>, JwtError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    match value.as_u64() {
        Some(seconds) if seconds <= SECONDS_MAX => Ok(Some(seconds)),
        _ => Err(JwtError::Claim { claim, problem: "not a whole second" }),
    }
}

/// Whether `audience` is the one string in `aud`, or one of its list.
fn names_audience(claims: &Map<String, Value>, audience: &str) -> Result<bool, JwtError> {
    let wrong = |problem| JwtError::Claim { claim: "aud", problem };
    let listed = match claims.get("aud") {
        Some(Value::String(one)) => return Ok(one == audience),
        Some(Value::Array(listed)) if listed.is_empty() => return Err(wrong("empty")),
        Some(Value::Array(listed)) if listed.len() > AUDIENCES_MAX => {
            return Err(wrong("too long"));
        }
        Some(Value::Array(listed)) => listed,
        Some(_) => return Err(wrong("not a list of strings")),
        None => return Err(wrong("missing")),
    };
    if !listed.iter().all(Value::is_string) {
        return Err(wrong("not a list of strings"));
    }
    Ok(listed.iter().any(|one| one.as_str() == Some(audience)))
}

#[cfg(test)]
mod tests;
