//! Identifiers as types of their own.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Longer than we accept.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The limit that was passed, in bytes.
        max: usize,
    },
    /// A character that breaks lines or turns the direction of writing, or another control, which
    /// no log or terminal should be asked to show.
    #[error("has a control character")]
    Control,
    /// A capability's name has a grammar of its own.
    #[error("`{0}` is not allowed; use letters, digits, `_`, `-`, `.` and begin with a letter")]
    Character(char),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $check:expr) => {
        $(#[$doc])*
        ///
        /// Cloning is cheap.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as it is, within the bounds.
            ///
            /// # Errors
            ///
            /// [`IdError`] names the bound that `text` breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if text.is_empty() {
                    return Err(IdError::Empty);
                }
                if text.len() > $max {
                    return Err(IdError::TooLong { max: $max });
                }
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn no_control(text: &str) -> Result<(), IdError> {
    // Nearly all are visible ASCII. Looking at every byte without a way out is what the compiler
    // turns into vector instructions, and every request makes several identifiers.
    if text.bytes().fold(true, |all, byte| all & (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    let is_control = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(is_control) { Err(IdError::Control) } else { Ok(()) }
}

fn capability(text: &str) -> Result<(), IdError> {
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    if !first.is_ascii_alphabetic() {
        return Err(IdError::Character(first));
    }
    match chars.find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
        Some(bad) => Err(IdError::Character(bad)),
        None => Ok(()),
    }
}

id!(
    /// A task's public name: a UUID v4 that the node made, because knowing it is half of access.
    TaskId, limits::ID_BYTES_MAX, no_control
);
id!(
    /// Groups tasks and messages of one conversation; the client or the node makes it.
    ContextId, limits::ID_BYTES_MAX, no_control
);
id!(
    /// A message's name, made by its sender.
    MessageId, limits::ID_BYTES_MAX, no_control
);
id!(
    /// An artifact's name within its task.
    ArtifactId, limits::ID_BYTES_MAX, no_control
);
id!(
    /// One request as logs and audit name it; the node makes it.
    RequestId, limits::ID_BYTES_MAX, no_control
);
id!(
    /// The name of a capability, such as `count_words`.
    CapabilityName, limits::CAPABILITY_BYTES_MAX, capability
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold() {
        assert!(TaskId::parse("x y").is_ok());
        assert!(TaskId::parse("é😀\u{a0}~").is_ok());
        assert_eq!(TaskId::parse("a\u{7f}").unwrap_err(), IdError::Control);
        assert_eq!(TaskId::parse("").unwrap_err(), IdError::Empty);
        for control in ["a\nb", "a\u{1b}[31m", "\u{9b}", "a\u{2028}", "\u{202e}b", "\u{2066}"] {
            assert_eq!(TaskId::parse(control).unwrap_err(), IdError::Control);
        }
        let long = "a".repeat(limits::ID_BYTES_MAX + 1);
        assert_eq!(
            TaskId::parse(&long).unwrap_err(),
            IdError::TooLong { max: limits::ID_BYTES_MAX }
        );
    }

    #[test]
    fn capability_names_are_plain() {
        assert!(CapabilityName::parse("count_words").is_ok());
        assert!(CapabilityName::parse("billing.invoice-v2").is_ok());
        assert_eq!(CapabilityName::parse("2fast").unwrap_err(), IdError::Character('2'));
        assert_eq!(CapabilityName::parse("a/b").unwrap_err(), IdError::Character('/'));
        assert_eq!(CapabilityName::parse("wörter").unwrap_err(), IdError::Character('ö'));
    }
}
