//! The keys with which a trust domain's JWT-SVIDs are checked.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use super::strict::is_key_id;

/// Largest JWK set that is read, in bytes.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Most keys of one trust domain.
const KEYS_MAX: usize = 64;

/// Bytes of one coordinate on the curve P-256.
const COORDINATE_BYTES: usize = 32;

/// The JWT keys of one trust domain, by their names.
#[derive(Clone, Default)]
pub struct JwtBundle {
    keys: BTreeMap<String, DecodingKey>,
}

/// Why a text is not a set of keys.
#[derive(Debug, thiserror::Error)]
pub enum JwtBundleError {
    /// Longer than is looked at.
    #[error("the key set is longer than {SET_BYTES_MAX} bytes")]
    TooLong,
    /// Not a JWK set.
    #[error("not a JWK set")]
    Json(#[source] serde_json::Error),
    /// More keys than any trust domain needs.
    #[error("more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// A key of a kind that we use cannot be used.
    #[error("the key at position {position} is not a usable P-256 key with a `kid`")]
    Key {
        /// Where it is in the set, counted from one.
        position: usize,
    },
    /// Two keys have one name.
    #[error("the key at position {position} has the `kid` of another one")]
    SameName {
        /// Where it is in the set, counted from one.
        position: usize,
    },
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl JwtBundle {
    /// Reads a JWK set as the Workload API sends it, or a SPIFFE bundle document, of which the
    /// X.509 authorities are passed over. Keys of other kinds than P-256 are passed over as well:
    /// their tokens are not believed.
    ///
    /// # Errors
    ///
    /// [`JwtBundleError`] when the set cannot be read, or a key of the kind that is used is broken.
    pub fn from_jwks(json: &[u8]) -> Result<Self, JwtBundleError> {
        if json.len() > SET_BYTES_MAX {
            return Err(JwtBundleError::TooLong);
        }
        let set: Set = serde_json::from_slice(json).map_err(JwtBundleError::Json)?;
        if set.keys.len() > KEYS_MAX {
            return Err(JwtBundleError::TooManyKeys);
        }
        let mut bundle = Self::default();
        for (position, key) in (1..).zip(&set.keys) {
            let ours = key.kty == "EC"
                && key.crv.as_deref() == Some("P-256")
                && matches!(key.usage.as_deref(), None | Some("jwt-svid"))
                && matches!(key.alg.as_deref(), None | Some("ES256"));
            if ours {
                let (kid, key) = key.read().ok_or(JwtBundleError::Key { position })?;
                if bundle.keys.insert(kid, key).is_some() {
                    return Err(JwtBundleError::SameName { position });
                }
            }
        }
        Ok(bundle)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn key(&self, kid: &str) -> Option<&DecodingKey> {
        self.keys.get(kid)
    }
}

impl Key {
    fn read(&self) -> Option<(String, DecodingKey)> {
        let kid = self.kid.as_ref().filter(|kid| is_key_id(kid))?;
        let (x, y) = (self.x.as_ref()?, self.y.as_ref()?);
        let coordinate = |text: &str| {
            URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == COORDINATE_BYTES)
        };
        if !coordinate(x) || !coordinate(y) {
            return None;
        }
        // A point that is not on the curve makes a key that verifies nothing.
        Some((kid.clone(), DecodingKey::from_ec_components(x, y).ok()?))
    }
}

impl fmt::Debug for JwtBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kid: &str) -> serde_json::Value {
        let coordinate = URL_SAFE_NO_PAD.encode([7; COORDINATE_BYTES]);
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": coordinate, "y": coordinate})
    }

    fn with(name: &str, value: serde_json::Value) -> serde_json::Value {
        let mut key = key("a");
        key[name] = value;
        key
    }

    fn check(keys: Vec<serde_json::Value>, expected: Result<usize, &str>) {
        let text = json!({ "keys": keys }).to_string();
        let found = JwtBundle::from_jwks(text.as_bytes());
        match (found, expected) {
            (Ok(bundle), Ok(len)) => assert_eq!(bundle.len(), len, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn keys_of_our_kind_are_taken_and_others_passed_over() {
        check(vec![], Ok(0));
        check(vec![key("a"), key("b")], Ok(2));
        check(vec![with("use", json!("jwt-svid")), with("use", json!("x509-svid"))], Ok(1));
        check(vec![with("kty", json!("RSA")), with("crv", json!("P-384"))], Ok(0));
        check(vec![with("alg", json!("ES384"))], Ok(0));
    }

    #[test]
    fn broken_keys_are_named_by_their_position() {
        check(vec![key("b"), with("x", json!("AAAA"))], Err("position 2"));
        check(vec![with("y", json!(null))], Err("position 1"));
        check(vec![with("kid", json!(null))], Err("position 1"));
        check(vec![with("kid", json!("../../etc/passwd"))], Err("position 1"));
        check(vec![key("a"), key("a")], Err("`kid` of another"));
        check((0..=KEYS_MAX).map(|number| key(&number.to_string())).collect(), Err("more than"));
        assert!(JwtBundle::from_jwks(b"{").is_err());
        assert!(JwtBundle::from_jwks(&vec![b' '; SET_BYTES_MAX + 1]).is_err());
    }
}
