//! JSON that passes through unchanged.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde_json::value::RawValue;

/// One JSON value as the text that its author wrote: 42 stays 42, 1e2 stays 1e2, and unknown keys
/// keep their order. Convoke carries what agents say; it does not edit it.
///
/// Cloning is cheap. Equality is of the text, not of the value.
#[derive(Clone)]
pub struct Json(Arc<str>);

/// A text that is not JSON, or a value that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JsonError(#[from] serde_json::Error);

impl Json {
    /// Keeps a value that a parser has just seen.
    #[must_use]
    pub fn from_raw(raw: &RawValue) -> Self {
        Self::from_checked(raw.get())
    }

    /// Keeps a text that the caller has just found to be exactly one JSON value, without white
    /// space around it.
    ///
    /// It is not looked at again here. A text that is no JSON is kept all the same and fails where
    /// the value is read ([`to`](Self::to)) or serialized; written as it is, it would spoil what it
    /// is written into. Whoever is not sure calls [`parse`](Self::parse).
    #[must_use]
    pub fn from_checked(text: &str) -> Self {
        Self(text.into())
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
        Ok(Self(serde_json::to_string(value)?.into()))
    }

    /// An empty object.
    #[must_use]
    pub fn empty_object() -> Self {
        Self::from_checked("{}")
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.0
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
        // serde_json makes a raw value only of a text that it has checked. The check is one pass
        // and is paid only where a value is embedded in a Rust type; the wires copy the text.
        let raw: &RawValue = serde_json::from_str(self.get()).map_err(S::Error::custom)?;
        raw.serialize(to)
    }
}

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text: Box<str> = Box::<RawValue>::deserialize(from)?.into();
        Ok(Self(text.into()))
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
        assert_eq!(Json::parse(" [ 1 ]\n").unwrap().get(), "[ 1 ]");
        assert_eq!(Json::empty_object(), Json::parse("{}").unwrap());
    }

    #[test]
    fn a_value_inside_a_type_keeps_its_text() {
        let text = r#"{"inner":{"b":1.0,"a":[1e2, "\u0041"]}}"#;
        let map: std::collections::BTreeMap<String, Json> = serde_json::from_str(text).unwrap();
        assert_eq!(map["inner"].get(), r#"{"b":1.0,"a":[1e2, "\u0041"]}"#);
        assert_eq!(serde_json::to_string(&map).unwrap(), text);
        assert_eq!(Json::of(&map).unwrap().get(), text);
    }

    #[test]
    fn what_was_wrongly_called_checked_is_not_passed_on() {
        for text in ["", "{", "1 2", "[}", "\"", "nul"] {
            let json = Json::from_checked(text);
            assert!(json.to::<serde::de::IgnoredAny>().is_err(), "{text}");
            assert!(serde_json::to_string(&json).is_err(), "{text}");
            assert!(Json::of(&[json]).is_err(), "{text}");
        }
    }
}
