//! SPIFFE identifiers, parsed once at the border.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits;

/// A SPIFFE ID such as `spiffe://example.org/document-worker`: a trust domain and a path.
///
/// Comparison is of bytes: IDs are case-sensitive and have one spelling. The path is never empty,
/// because an ID without a path names a trust domain and not a workload.
///
/// Source: SPIFFE-ID §2. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins in `text`; the slash is part of the path.
    path_at: u16,
}

/// The name of a trust domain such as `example.org`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// Why a text is not a SPIFFE ID or not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// The scheme is missing or not exactly `spiffe`.
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// No trust domain between `spiffe://` and the path.
    #[error("the trust domain is empty")]
    TrustDomainEmpty,
    /// A character that the trust domain's grammar does not have.
    #[error("trust domain has `{0}`; only a-z, 0-9, `.`, `-` and `_` are allowed")]
    TrustDomainCharacter(char),
    /// No path: this names a trust domain, not a workload.
    #[error("the path is empty; a workload's ID has one, such as `/worker`")]
    PathEmpty,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty segment")]
    PathSegmentEmpty,
    /// `.` or `..` as a segment.
    #[error("the path has a `.` or `..` segment")]
    PathSegmentDots,
    /// A character that the path's grammar does not have.
    #[error("path has `{0}`; only letters, digits, `.`, `-`, `_` and `/` are allowed")]
    PathCharacter(char),
    /// Longer than we accept.
    #[error("longer than {max} bytes")]
    TooLong {
        /// The limit that was passed, in bytes.
        max: usize,
    },
}

impl SpiffeId {
    /// Parses the one spelling of a SPIFFE ID.
    ///
    /// # Errors
    ///
    /// The first rule of SPIFFE-ID §2 that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > limits::SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong { max: limits::SPIFFE_ID_BYTES_MAX });
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        check_trust_domain(domain)?;
        if path.is_empty() {
            return Err(SpiffeIdError::PathEmpty);
        }
        for segment in path[1..].split('/') {
            match segment {
                "" => return Err(SpiffeIdError::PathSegmentEmpty),
                "." | ".." => return Err(SpiffeIdError::PathSegmentDots),
                _ => {}
            }
            if let Some(bad) = segment
                .chars()
                .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
            {
                return Err(SpiffeIdError::PathCharacter(bad));
            }
        }
        let path_at = u16::try_from("spiffe://".len() + domain.len())
            .map_err(|_| SpiffeIdError::TooLong { max: limits::SPIFFE_ID_BYTES_MAX })?;
        Ok(Self { text: text.into(), path_at })
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name between `spiffe://` and the path.
    #[must_use]
    pub fn trust_domain_str(&self) -> &str {
        &self.text["spiffe://".len()..usize::from(self.path_at)]
    }

    /// The trust domain as a value of its own.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.trust_domain_str().into())
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path_at)..]
    }
}

impl TrustDomain {
    /// Parses a bare name such as `example.org`.
    ///
    /// # Errors
    ///
    /// The first rule of SPIFFE-ID §2.1 that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The bare name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of this domain itself, `spiffe://example.org`, as an authority's certificate has it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }

    /// The workload ID `path` (with its leading slash) in this domain.
    ///
    /// # Errors
    ///
    /// As [`SpiffeId::parse`].
    pub fn member(&self, path: &str) -> Result<SpiffeId, SpiffeIdError> {
        SpiffeId::parse(&format!("spiffe://{}{path}", self.0))
    }
}

fn check_trust_domain(text: &str) -> Result<(), SpiffeIdError> {
    if text.is_empty() {
        return Err(SpiffeIdError::TrustDomainEmpty);
    }
    if text.len() > limits::TRUST_DOMAIN_BYTES_MAX {
        return Err(SpiffeIdError::TooLong { max: limits::TRUST_DOMAIN_BYTES_MAX });
    }
    match text
        .chars()
        .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_')))
    {
        Some(bad) => Err(SpiffeIdError::TrustDomainCharacter(bad)),
        None => Ok(()),
    }
}

macro_rules! text_impls {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = SpiffeIdError;
            fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
                Self::parse(text)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_impls!(SpiffeId);
text_impls!(TrustDomain);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<(&str, &str), SpiffeIdError>) {
        let parsed = SpiffeId::parse(input);
        let parts = parsed.as_ref().map(|id| (id.trust_domain_str(), id.path()));
        assert_eq!(parts.map_err(Clone::clone), expected, "{input}");
    }

    #[test]
    fn parses_the_one_spelling() {
        use SpiffeIdError as E;
        check("spiffe://example.org/worker", Ok(("example.org", "/worker")));
        check("spiffe://a_b-c.d/x/Y.z_1-", Ok(("a_b-c.d", "/x/Y.z_1-")));
        check("spiffe://td/...", Ok(("td", "/...")));
        check("https://example.org/worker", Err(E::Scheme));
        check("SPIFFE://example.org/worker", Err(E::Scheme));
        check("spiffe:///worker", Err(E::TrustDomainEmpty));
        check("spiffe://Example.org/w", Err(E::TrustDomainCharacter('E')));
        check("spiffe://example.org:8443/w", Err(E::TrustDomainCharacter(':')));
        check("spiffe://user@example.org/w", Err(E::TrustDomainCharacter('@')));
        check("spiffe://example.org", Err(E::PathEmpty));
        check("spiffe://example.org/", Err(E::PathSegmentEmpty));
        check("spiffe://example.org/a//b", Err(E::PathSegmentEmpty));
        check("spiffe://example.org/a/", Err(E::PathSegmentEmpty));
        check("spiffe://example.org/a/../b", Err(E::PathSegmentDots));
        check("spiffe://example.org/./b", Err(E::PathSegmentDots));
        check("spiffe://example.org/a%2fb", Err(E::PathCharacter('%')));
        check("spiffe://example.org/a?b", Err(E::PathCharacter('?')));
        check("spiffe://example.org/ä", Err(E::PathCharacter('ä')));
        let long = format!("spiffe://example.org/{}", "a".repeat(limits::SPIFFE_ID_BYTES_MAX));
        check(&long, Err(E::TooLong { max: limits::SPIFFE_ID_BYTES_MAX }));
        let wide = format!("spiffe://{}/a", "d".repeat(limits::TRUST_DOMAIN_BYTES_MAX + 1));
        check(&wide, Err(E::TooLong { max: limits::TRUST_DOMAIN_BYTES_MAX }));
    }

    #[test]
    fn a_domain_names_its_members() {
        let domain = TrustDomain::parse("example.org").unwrap();
        assert_eq!(domain.uri(), "spiffe://example.org");
        assert_eq!(domain.member("/user/ann").unwrap().as_str(), "spiffe://example.org/user/ann");
        assert!(domain.member("user").is_err());
    }
}
