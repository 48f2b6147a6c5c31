//! Who may call one capability, said where the capability is written.

use std::fmt;
use std::sync::Arc;

use convoke_model::{Caller, SpiffeId, SpiffeIdError, limits};

/// Most patterns of one guard.
const PATTERNS_MAX: usize = 64;

/// What a capability asks of its caller, beside what policy does: that its SPIFFE ID matches one
/// of some patterns. A caller without an ID never passes.
///
/// It can only take away: policy is asked first, and what it refuses stays refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerGuard {
    patterns: Vec<PeerPattern>,
    /// The patterns as records of a refusal have them.
    rule: Arc<str>,
}

/// A SPIFFE ID with holes: `*` stands for any characters within a segment of the path, and `**` as
/// the last segment for one segment or more. The trust domain is always given in full, since a
/// pattern that held in any domain would hold in an attacker's.
///
/// ```
/// use convoke_agent::PeerPattern;
/// use convoke_model::SpiffeId;
///
/// let teams = PeerPattern::parse("spiffe://example.org/team-*/orchestrator")?;
/// assert!(teams.matches(&SpiffeId::parse("spiffe://example.org/team-a/orchestrator")?));
/// assert!(!teams.matches(&SpiffeId::parse("spiffe://example.org/team-a/b/orchestrator")?));
///
/// let users = PeerPattern::parse("spiffe://example.org/user/**")?;
/// assert!(users.matches(&SpiffeId::parse("spiffe://example.org/user/ann/laptop")?));
/// assert!(!users.matches(&SpiffeId::parse("spiffe://example.org/user")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPattern {
    text: Box<str>,
    /// `spiffe://<trust domain>/` and the segments after it, without a closing `**`.
    segments_at: usize,
    /// Where the segments end in `text`.
    segments_end: usize,
    /// Whether further segments follow, which may be any.
    has_rest: bool,
}

/// Why a text is not a pattern for SPIFFE IDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerPatternError {
    /// With something in place of each `*` it would still be no SPIFFE ID.
    #[error("{0}")]
    Id(#[from] SpiffeIdError),
    /// A star before the path.
    #[error("the trust domain has `*`; name the domain, and write one pattern for each")]
    TrustDomain,
    /// Two stars where they do not stand for the rest.
    #[error("`**` stands for the rest of the path, so it is its last segment and alone in it")]
    Rest,
}

/// Why patterns make no guard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerGuardError {
    /// A pattern is wrong.
    #[error("`{pattern}`: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: PeerPatternError,
    },
    /// No pattern, so nobody could ever pass.
    #[error("no pattern; leave `requires_peer` out, or say who may call")]
    Empty,
    /// More patterns than are looked through for each call.
    #[error("{count} patterns are more than {PATTERNS_MAX}; use `*`, or leave it to policy")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl PeerGuard {
    /// A guard that lets callers pass whose ID matches any of `patterns`.
    ///
    /// # Errors
    ///
    /// [`PeerGuardError`] names the first pattern that is wrong.
    pub fn new<T: AsRef<str>>(
        patterns: impl IntoIterator<Item = T>,
    ) -> Result<Self, PeerGuardError> {
        let read = |text: T| {
            let pattern = text.as_ref();
            PeerPattern::parse(pattern)
                .map_err(|problem| PeerGuardError::Pattern { pattern: pattern.into(), problem })
        };
        let patterns = patterns.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        match patterns.len() {
            0 => return Err(PeerGuardError::Empty),
            count if count > PATTERNS_MAX => return Err(PeerGuardError::TooMany { count }),
            _ => {}
        }
        let rule: Vec<_> = patterns.iter().map(PeerPattern::as_str).collect();
        Ok(Self { rule: rule.join(", ").into(), patterns })
    }

    /// Whether `caller` passes.
    #[must_use]
    pub fn admits(&self, caller: &Caller) -> bool {
        caller.spiffe_id().is_some_and(|id| self.patterns.iter().any(|one| one.matches(id)))
    }

    /// The patterns, as many as there are.
    #[must_use]
    pub fn patterns(&self) -> &[PeerPattern] {
        &self.patterns
    }

    /// The patterns as one text, which names the guard in the record of a refusal.
    #[must_use]
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }
}

impl PeerPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, PeerPatternError> {
        if text.len() > limits::SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong { max: limits::SPIFFE_ID_BYTES_MAX }.into());
        }
        let after_scheme = text.strip_prefix("spiffe://").unwrap_or_default();
        if after_scheme.split('/').next().unwrap_or_default().contains('*') {
            return Err(PeerPatternError::TrustDomain);
        }
        let has_rest = text.ends_with("/**");
        let segments_end = if has_rest { text.len() - "/**".len() } else { text.len() };
        if text[..segments_end].contains("**") {
            return Err(PeerPatternError::Rest);
        }
        // What it stands for has to be an ID: the grammar of those is written once, in the model.
        let example = SpiffeId::parse(&text.replace('*', "x"))?;
        let segments_at = text.len() - example.path().len();
        Ok(Self { text: text.into(), segments_at, segments_end, has_rest })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `id` is one that the pattern stands for.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let (domain, path) = self.text.split_at(self.segments_at);
        if domain.strip_prefix("spiffe://") != Some(id.trust_domain_str()) {
            return false;
        }
        // Both begin with a slash, except where `**` is all that there is.
        let path = &path[..self.segments_end - self.segments_at];
        let mut found = id.path().split('/');
        let segments =
            path.split('/').all(|wanted| found.next().is_some_and(|is| fits(wanted, is)));
        segments && found.next().is_some() == self.has_rest
    }
}

/// Whether `text` is `pattern` with something in place of each star. Taking the first place where
/// each part fits is enough, because what follows a star may begin anywhere.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

impl fmt::Display for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use convoke_model::Principal;

    use super::*;

    fn check(pattern: &str, passes: &[&str], fails: &[&str]) {
        let pattern = PeerPattern::parse(pattern).unwrap();
        let matches = |id: &&str| pattern.matches(&SpiffeId::parse(id).unwrap());
        let found = |ids: &[&str]| ids.iter().map(matches).collect::<Vec<_>>();
        assert_eq!(found(passes), vec![true; passes.len()], "{pattern}: {passes:?}");
        assert_eq!(found(fails), vec![false; fails.len()], "{pattern}: {fails:?}");
    }

    #[test]
    fn an_id_without_stars_is_that_id_alone() {
        check(
            "spiffe://example.org/orchestrator",
            &["spiffe://example.org/orchestrator"],
            &[
                "spiffe://example.org/Orchestrator",
                "spiffe://example.org/orchestrator/x",
                "spiffe://example.org/x/orchestrator",
                "spiffe://example.org/orchestrators",
                "spiffe://example.or/orchestrator",
                "spiffe://example.org.evil.com/orchestrator",
            ],
        );
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        check(
            "spiffe://example.org/*",
            &["spiffe://example.org/a"],
            &["spiffe://example.org/a/b", "spiffe://example.com/a"],
        );
        check(
            "spiffe://example.org/a*b*c/d",
            &["spiffe://example.org/abc/d", "spiffe://example.org/axxbbxbc.c/d"],
            &[
                "spiffe://example.org/ab/d",
                "spiffe://example.org/acb/d",
                "spiffe://example.org/abcx/d",
                "spiffe://example.org/abc",
                "spiffe://example.org/a/b/c/d",
            ],
        );
        // The part before a star and that after it do not share characters.
        check(
            "spiffe://example.org/ab*ba",
            &["spiffe://example.org/abba"],
            &["spiffe://example.org/aba"],
        );
    }

    #[test]
    fn two_stars_are_the_rest() {
        check(
            "spiffe://example.org/**",
            &["spiffe://example.org/a", "spiffe://example.org/a/b/c"],
            &["spiffe://example.com/a"],
        );
        check(
            "spiffe://example.org/team-*/**",
            &["spiffe://example.org/team-/x", "spiffe://example.org/team-a/x/y"],
            &["spiffe://example.org/team-a", "spiffe://example.org/teams/x"],
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let check = |pattern: &str, expected: &str| {
            assert_eq!(PeerPattern::parse(pattern).unwrap_err().to_string(), expected, "{pattern}");
        };
        let rest =
            "`**` stands for the rest of the path, so it is its last segment and alone in it";
        let domain = "the trust domain has `*`; name the domain, and write one pattern for each";
        check("example.org/a", "a SPIFFE ID begins with `spiffe://`");
        check("*", "a SPIFFE ID begins with `spiffe://`");
        check("**", rest);
        check("/**", "a SPIFFE ID begins with `spiffe://`");
        check("spiffe://*/a", domain);
        check("spiffe://*.example.org/a", domain);
        check("spiffe://**", domain);
        check("spiffe:///**", "the trust domain is empty");
        check("spiffe://example.org/**/a", rest);
        check("spiffe://example.org/a**", rest);
        check("spiffe://example.org/**/**", rest);
        check("spiffe://example.org/***", rest);
        check(
            "spiffe://example.org",
            "the path is empty; a workload's ID has one, such as `/worker`",
        );
        check("spiffe://example.org/a//b", "the path has an empty segment");
        check("spiffe://example.org/../*", "the path has a `.` or `..` segment");
        check(
            "spiffe://example.org/[ab]",
            "path has `[`; only letters, digits, `.`, `-`, `_` and `/` are allowed",
        );
        check(&format!("spiffe://example.org/{}", "a".repeat(2048)), "longer than 2048 bytes");
    }

    #[test]
    fn a_guard_lets_any_of_its_patterns_pass_and_nobody_without_an_id() {
        let guard = PeerGuard::new(["spiffe://example.org/a", "spiffe://other.org/**"]).unwrap();
        let caller = |id: &str| {
            let id = SpiffeId::parse(id).unwrap();
            Caller::Principal(Arc::new(Principal::from_verified_svid(id.clone(), &id)))
        };
        assert!(guard.admits(&caller("spiffe://example.org/a")));
        assert!(guard.admits(&caller("spiffe://other.org/b/c")));
        assert!(!guard.admits(&caller("spiffe://example.org/b")));
        assert!(!guard.admits(&Caller::Anonymous));
        assert_eq!(&**guard.rule(), "spiffe://example.org/a, spiffe://other.org/**");

        assert_eq!(PeerGuard::new::<&str>([]), Err(PeerGuardError::Empty));
        let many = vec!["spiffe://example.org/a"; 65];
        assert_eq!(PeerGuard::new(many), Err(PeerGuardError::TooMany { count: 65 }));
        assert_eq!(
            PeerGuard::new(["a"]).unwrap_err().to_string(),
            "`a`: a SPIFFE ID begins with `spiffe://`"
        );
    }
}
