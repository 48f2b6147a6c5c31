//! JSON of a token, read so that no two readers can see two things in it.

use convoke_model::check_keys;
use serde_json::{Map, Value};

use super::{JwtError, KEY_ID_BYTES_MAX};

/// What a JWT-SVID's header says that is of use.
#[derive(Debug)]
pub(super) struct Header {
    /// The name of the key.
    pub(super) kid: String,
}

impl Header {
    /// Reads a header.
    ///
    /// One of any other name is refused: some would have the key come from the token itself, or
    /// from wherever it says; others change what is signed. Source: JWT-SVID §2 allows these three.
    pub(super) fn parse(json: &[u8]) -> Result<Self, JwtError> {
        let wrong = Err(JwtError::Header("it has to be `alg`, `kid` and at most `typ`"));
        let Some(mut header) = object(json) else { return wrong };
        let (alg, typ, kid) = (header.remove("alg"), header.remove("typ"), header.remove("kid"));
        let (Some(Value::String(alg)), Some(Value::String(kid)), true) =
            (alg, kid, header.is_empty())
        else {
            return wrong;
        };
        if alg != "ES256" {
            return Err(JwtError::Header("`alg` is not the key's, ES256"));
        }
        match typ {
            None => {}
            Some(Value::String(typ)) if typ == "JWT" || typ == "JOSE" => {}
            Some(_) => return Err(JwtError::Header("`typ` is neither JWT nor JOSE")),
        }
        if !is_key_id(&kid) {
            return Err(JwtError::Header("`kid` is not the name of a key"));
        }
        Ok(Self { kid })
    }
}

/// Whether a text can name a key: it is only ever looked up among the keys that there are.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The claims of a token, in which no name comes twice, at any depth.
pub(super) fn claims(json: &[u8]) -> Result<Map<String, Value>, JwtError> {
    object(json).ok_or(JwtError::Form("its claims are not a JSON object of different names"))
}

/// A JSON object of which nothing in it names a key twice. Not read into a struct: serde would take
/// a list for one as well.
fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let text = std::str::from_utf8(json).ok()?;
    check_keys(text).ok()?;
    serde_json::from_str(text).ok()
}
