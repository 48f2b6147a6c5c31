//! The fields of the input document, and sets of them.

use std::fmt;

use convoke_model::Caller;

use crate::Question;

macro_rules! fields {
    ($($field:ident $section:literal $name:literal)*) => {
        /// A field of the document: the smallest part that is built or left out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Field {
            $($field,)*
        }

        impl Field {
            /// Every field, section by section.
            pub(crate) const ALL: &[Self] = &[$(Self::$field,)*];

            /// The section, which is empty for a field of the document itself, and the key in it.
            pub(crate) fn place(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$field => ($section, $name),)*
                }
            }
        }
    };
}

fields! {
    CallerSpiffeId "caller" "spiffe_id"
    CallerTrustDomain "caller" "trust_domain"
    CallerPath "caller" "path"
    CallerTenant "caller" "tenant"
    CallerApp "caller" "app"
    CallerTrustLevel "caller" "trust_level"
    AgentSpiffeId "agent" "spiffe_id"
    AgentTrustDomain "agent" "trust_domain"
    AgentName "agent" "name"
    Method "request" "method"
    Operation "request" "operation"
    Params "request" "params"
    Timestamp "request" "timestamp"
    Protocol "request" "protocol"
    RemoteAddr "context" "remote_addr"
    RequestId "context" "request_id"
    TaskId "context" "task_id"
    ContextId "context" "context_id"
    Delegation "" "delegation"
    CallerSpiffeIdAlias "" "caller_spiffe_id"
    CalleeSpiffeIdAlias "" "callee_spiffe_id"
    ResourceSpiffeIdAlias "" "resource_spiffe_id"
    ActionAlias "" "action"
    MethodAlias "" "method"
    TimestampAlias "" "timestamp"
    CallerTrustDomainAlias "" "caller_trust_domain"
    ResourceTrustDomainAlias "" "resource_trust_domain"
}

impl Field {
    /// Whether most questions have a value of their own, so that an answer is not worth keeping.
    ///
    /// A delegation is as good as constant today. It counts because what it will hold, a budget
    /// and an instant, belongs to one call, and because it has no [`Field::text`] to compare.
    pub(crate) fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::Params
                | Self::Timestamp
                | Self::TimestampAlias
                | Self::RemoteAddr
                | Self::RequestId
                | Self::TaskId
                | Self::ContextId
                | Self::Delegation
        )
    }

    /// The field's value in `question`, for the fields whose value is a text of the question; `None`
    /// where it is not known.
    pub(crate) fn text<'a>(self, question: &Question<'a>) -> Option<&'a str> {
        let caller = match question.caller {
            Caller::Principal(principal) => Some(principal),
            Caller::Anonymous => None,
        };
        match self {
            Self::CallerSpiffeId | Self::CallerSpiffeIdAlias => {
                caller.map(|caller| caller.spiffe_id.as_str())
            }
            Self::CallerTrustDomain | Self::CallerTrustDomainAlias => {
                caller.map(|caller| caller.spiffe_id.trust_domain_str())
            }
            Self::CallerPath => caller.map(|caller| caller.spiffe_id.path()),
            Self::CallerTenant => caller.map(|caller| &*caller.tenant),
            Self::CallerApp => caller.map(|caller| &*caller.app).filter(|app| !app.is_empty()),
            Self::CallerTrustLevel => caller.map(|caller| caller.trust_level.as_str()),
            Self::AgentSpiffeId | Self::CalleeSpiffeIdAlias | Self::ResourceSpiffeIdAlias => {
                Some(question.agent.as_str())
            }
            Self::AgentTrustDomain | Self::ResourceTrustDomainAlias => {
                Some(question.agent.trust_domain_str())
            }
            Self::AgentName => Some(question.agent_name),
            Self::Method | Self::ActionAlias | Self::MethodAlias => Some(question.method),
            Self::Operation => Some(question.operation.as_str()),
            Self::Protocol => Some(question.protocol),
            Self::RemoteAddr => Some(question.remote_addr),
            Self::RequestId => Some(question.request_id),
            Self::TaskId => question.task_id,
            Self::ContextId => question.context_id,
            Self::Params | Self::Timestamp | Self::TimestampAlias | Self::Delegation => None,
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fields(u32);

const _: () = assert!(Field::ALL.len() <= u32::BITS as usize);

impl Fields {
    /// What a reference can see that begins with `input` and goes on with the keys `path`; what
    /// follows them is not known, or goes deeper than fields do.
    pub(crate) fn under(path: &[&str]) -> Self {
        let is_seen = |field: &Field| match (path, field.place()) {
            ([], _) => true,
            ([first, ..], ("", name)) => *first == name,
            ([first], (section, _)) => *first == section,
            ([first, second, ..], (section, name)) => *first == section && *second == name,
        };
        Field::ALL.iter().copied().filter(is_seen).collect()
    }

    pub(crate) fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// In the order of [`Field::ALL`].
    pub(crate) fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| self.has(*field))
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        Self(fields.into_iter().fold(0, |bits, field| bits | 1 << field as u8))
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &[&str], expected: &[Field]) {
        assert_eq!(Fields::under(path), expected.iter().copied().collect(), "{path:?}");
    }

    #[test]
    fn a_path_sees_what_is_below_it() {
        check(&[], Field::ALL);
        check(&["agent"], &[Field::AgentSpiffeId, Field::AgentTrustDomain, Field::AgentName]);
        check(&["agent", "name"], &[Field::AgentName]);
        check(&["agent", "name", "first"], &[Field::AgentName]);
        check(&["request", "params", "text"], &[Field::Params]);
        check(&["action"], &[Field::ActionAlias]);
        check(&["action", "x"], &[Field::ActionAlias]);
        check(&["delegation", "chain"], &[Field::Delegation]);
        check(&["caller_spiffe_id"], &[Field::CallerSpiffeIdAlias]);
        check(&["method"], &[Field::MethodAlias]);
        check(&["methods"], &[]);
        check(&["caller", "method"], &[]);
        check(&[""], &[]);
        check(&["", "action"], &[]);
    }
}
