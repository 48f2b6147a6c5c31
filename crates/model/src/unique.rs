//! JSON in which no object names a key twice.
//!
//! A parser keeps one of the two, and other readers of the same text keep the other: what a proxy
//! saw refused would be allowed here.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotUnique {
    /// It is no JSON, or is nested deeper than the parser goes.
    #[error("it is no json")]
    NotJson,
    /// An object in it names a key twice.
    #[error("an object in it names a key twice")]
    Twice,
}

/// Checks that `text` is JSON of which no object, at any depth, names a key twice. Keys are compared
/// as they are meant, however they are escaped.
///
/// The caller has bounded the length of `text`; the parser bounds its depth.
///
/// # Errors
///
/// [`NotUnique`], which says only which of the two it was.
pub fn check_keys(text: &str) -> Result<(), NotUnique> {
    match serde_json::from_str::<Unique>(text) {
        Ok(Unique) => Ok(()),
        // Every type is taken below, so nothing else about the data can be wrong.
        Err(error) if error.is_data() => Err(NotUnique::Twice),
        Err(_) => Err(NotUnique::NotJson),
    }
}

/// A value of which nothing is kept but that its keys are unique.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key is named twice"));
            }
            let Self = map.next_value()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_in_each_object_and_as_they_are_meant() {
        let check = |text: &str, expected: Result<(), NotUnique>| {
            assert_eq!(check_keys(text), expected, "{text}");
        };
        check(r#"{"a":1,"a":1}"#, Err(NotUnique::Twice));
        check(r#"{"a":1,"\u0061":2}"#, Err(NotUnique::Twice));
        check(r#"[0,{"x":[{"a":null,"b":"s","a":-1.5e3}]}]"#, Err(NotUnique::Twice));
        check(r#"{"a":{"a":1},"b":[{"a":1},{"a":true}],"A":18446744073709551616}"#, Ok(()));
        for text in ["", "{", r#"{"a":1,"#, "{a:1}", r#"{"a":1} {"a":1}"#] {
            check(text, Err(NotUnique::NotJson));
        }
        check(&"[".repeat(100_000), Err(NotUnique::NotJson));
    }
}
