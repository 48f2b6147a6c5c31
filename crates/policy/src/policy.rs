//! A loaded policy and what it is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use convoke_model::{Decision, Reason, Revision, limits};

use crate::engine::{self, Program};
use crate::{Explanation, Finding, LoadError, PolicyData, Question, explain, lint, load};

/// The package that a policy declares unless configuration says otherwise.
///
/// Source: the first seed, whose policies are all in `package agentweave.authz`.
pub const PACKAGE_DEFAULT: &str = "agentweave.authz";

/// The text of a policy and the name that messages call it by.
#[derive(Debug, Clone)]
pub struct PolicySource {
    /// The file's name, for messages only.
    pub name: String,
    /// The file's content.
    pub text: String,
}

/// How to read a policy and how far its evaluation may go.
#[derive(Debug, Clone)]
pub struct PolicyOptions {
    /// The package that the policy has to declare, such as `agentweave.authz`.
    pub package: String,
    /// The language that the policy is written in; `None` finds out.
    pub language: Option<Language>,
    /// Longest evaluation of one decision, in the thread's processor time.
    pub time_max: Duration,
    /// Largest input document, in bytes of its JSON text before escapes.
    pub input_bytes_max: usize,
    /// Files whose objects the policy reads as `data`.
    pub data: Vec<PolicyData>,
}

/// The two versions of Rego.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rego v0 with the keywords `in`, `if`, `contains` and `every`, or with `in` alone where a
    /// policy uses the others as names. Never plain v0, in which `allow if {…}` allows everything.
    V0,
    /// Rego v1.
    V1,
}

/// The answer to everything when no policy is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// Refuse everything.
    DenyAll,
    /// Allow everything.
    AllowAll,
}

/// A policy that is ready to be asked, from any thread. Cloning is cheap.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

enum Inner {
    Fixed { answer: Fixed, rule: Arc<str>, revision: Revision },
    Rego(Arc<Program>),
}

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the text does not parse in any accepted language, is of another package,
    /// has no rule to ask, or uses what this engine cannot evaluate.
    pub fn load(source: &PolicySource, options: &PolicyOptions) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(Inner::Rego(Arc::new(load::load(source, options)?.program)))))
    }

    /// What is wrong with a policy, or surely unmeant, or good to know, by line. A policy that does
    /// not load has one finding, which says why.
    #[must_use]
    pub fn lint(source: &PolicySource, options: &PolicyOptions) -> Vec<Finding> {
        lint::lint(source, options)
    }

    /// The answer to everything while no policy is configured. It is never a fallback for a policy
    /// that does not load, has no value, or fails.
    #[must_use]
    pub fn fixed(answer: Fixed) -> Self {
        let (rule, revision) = match answer {
            Fixed::DenyAll => ("default_policy deny_all", "deny_all"),
            Fixed::AllowAll => ("default_policy allow_all", "allow_all"),
        };
        Self(Arc::new(Inner::Fixed {
            answer,
            rule: rule.into(),
            revision: Revision(revision.into()),
        }))
    }

    /// Which policy this is: the beginning of a SHA-256 of its text, its data and its options in
    /// hexadecimal, or the name of the fixed answer.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        match &*self.0 {
            Inner::Fixed { revision, .. } => revision,
            Inner::Rego(program) => &program.revision,
        }
    }

    /// The full name of the rule that decides, such as `data.agentweave.authz.allow`, or the fixed
    /// answer.
    #[must_use]
    pub fn rule(&self) -> &str {
        match &*self.0 {
            Inner::Fixed { rule, .. } => rule,
            Inner::Rego(program) => &program.rule,
        }
    }

    /// The language that the policy was read as; `None` if none is loaded.
    #[must_use]
    pub fn language(&self) -> Option<Language> {
        match &*self.0 {
            Inner::Fixed { .. } => None,
            Inner::Rego(program) if program.v0 => Some(Language::V0),
            Inner::Rego(_) => Some(Language::V1),
        }
    }

    /// Answers `question`.
    ///
    /// `monotonic` is a clock that never goes back; its origin does not matter. It measures
    /// [`Decision::took`], and tells an evaluation that is surely within
    /// [`PolicyOptions::time_max`] from one that may not be. The latter is repeated by the thread's
    /// processor time, which a busy machine does not use up. An evaluation that went over is a
    /// refusal even if it ended with `true`, because nothing interrupts the engine inside a built-in
    /// function.
    ///
    /// The first question on a thread also loads the policy there. Engines are never shared by
    /// threads, since they would contend for their reference counts.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>, monotonic: &dyn Fn() -> Duration) -> Decision {
        let began = monotonic();
        let (reason, rule, revision) = match &*self.0 {
            Inner::Fixed { answer, rule, revision } => {
                let reason = match answer {
                    Fixed::DenyAll => Reason::Denied(None),
                    Fixed::AllowAll => Reason::Allowed(None),
                };
                (reason, rule.clone(), revision.clone())
            }
            Inner::Rego(program) => engine::decide(program, question, monotonic),
        };
        Decision { reason, rule, revision, took: monotonic().saturating_sub(began) }
    }

    /// Answers `question` and says why: which rule allowed, or what kept each rule from it.
    ///
    /// This evaluates the policy many times over and is not for the path of a request. `monotonic`
    /// is as in [`Policy::decide`].
    ///
    /// # Errors
    ///
    /// The engine's words if the question's parameters cannot be evaluated at all.
    pub fn explain(
        &self,
        question: &Question<'_>,
        monotonic: &dyn Fn() -> Duration,
    ) -> Result<Explanation, ExplainError> {
        let decision = self.decide(question, monotonic);
        match &*self.0 {
            Inner::Fixed { .. } => {
                Ok(Explanation { decision, file: None, place: None, tried: Vec::new() })
            }
            Inner::Rego(program) => explain::explain(program, question, decision)
                .map_err(|said| ExplainError(said.message)),
        }
    }
}

/// Why a decision cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the decision cannot be explained: {0}")]
pub struct ExplainError(String);

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Inner::Fixed { rule, .. } => write!(f, "Policy({rule})"),
            Inner::Rego(program) => write!(f, "Policy({} {})", program.rule, self.revision().0),
        }
    }
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            package: PACKAGE_DEFAULT.to_owned(),
            language: None,
            time_max: limits::POLICY_TIME_MAX,
            input_bytes_max: limits::POLICY_INPUT_BYTES_MAX,
            data: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_goes_to_any_thread() {
        fn check<T: Send + Sync + Clone + 'static>() {}
        check::<Policy>();
    }
}
