//! JSON that passes through unchanged.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// One JSON value as the text that its author wrote: 42 stays 42, 1e2 stays 1e2, and unknown keys
/// keep their order. Convoke carries what agents say; it does not edit it.
///
/// Cloning is cheap. Equality is of the text, not of the value.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

/// A text that is not JSON, or a value that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JsonError(#[from] serde_json::Error);

impl Json {
    /// Keeps a value that a parser has just seen.
    #[must_use]
    pub fn from_raw(raw: &RawValue) -> Self {
        Self(Arc::from(raw.to_owned()))
    }

    /// Checks and keeps a text.
    ///
    /// # Errors
    ///
    /// If `text` is not one JSON value.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self::from_raw(raw))
    }

    /// Serializes `value`.
    ///
    /// # Errors
    ///
    /// If `value` has what JSON has not: a map key that is no string, for example.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        Ok(Self(Arc::from(serde_json::value::to_raw_value(value)?)))
    }

    /// An empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self::parse("{}").unwrap_or_else(|_| unreachable!("`{{}}` is JSON"))
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Reads the text as a `T`.
    ///
    /// # Errors
    ///
    /// If the value has another shape than `T`.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        Ok(serde_json::from_str(self.get())?)
    }

    /// Whether the value is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.get().starts_with('{')
    }

    /// Whether the value is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::from(Box::<RawValue>::deserialize(from)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept() {
        for text in ["42", "42.0", "1e2", "18446744073709551617", r#"{"b":1,"a":2}"#, r#""\u0041""#]
        {
            let json = Json::parse(text).unwrap();
            assert_eq!(json.get(), text);
            assert_eq!(serde_json::to_string(&json).unwrap(), text);
        }
        assert!(Json::parse("{").is_err());
        assert!(Json::parse("1 2").is_err());
    }
}
