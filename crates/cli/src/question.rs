//! A question to a policy, from the command line, an input document or a table of cases.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convoke::{Caller, Json, Principal, SpiffeId, UnixMillis};
use convoke_model::OperationKind;
use convoke_policy::{Explanation, Policy, Question};
use serde_json::Value;

use crate::exit::{Code, Failure};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Anonymous,
    Agent(SpiffeId),
}

/// A question that owns what it is made of.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) caller: Who,
    pub(crate) agent: SpiffeId,
    /// The agent's name; by default the last part of its SPIFFE ID, as in a configuration.
    pub(crate) agent_name: Option<String>,
    pub(crate) method: String,
    pub(crate) params: Option<Json>,
    pub(crate) operation: OperationKind,
    pub(crate) at: UnixMillis,
    pub(crate) context: Context,
}

/// What a request has around it.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) protocol: Option<String>,
    pub(crate) remote_addr: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) task_id: Option<String>,
    pub(crate) context_id: Option<String>,
}

impl Asking {
    /// What `policy` decides, and why.
    pub(crate) fn explain(&self, policy: &Policy) -> Result<Explanation, Failure> {
        let began = Instant::now();
        self.with(|question| policy.explain(question, &|| began.elapsed()))
            .map_err(|error| Failure::new(Code::Failure, error))
    }

    /// Calls `with` with the question. What nobody has said is as on a connection of this machine.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&Question<'_>) -> T) -> T {
        let caller = match &self.caller {
            Who::Anonymous => Caller::Anonymous,
            Who::Agent(id) => {
                Caller::Principal(Arc::new(Principal::from_verified_svid(id.clone(), &self.agent)))
            }
        };
        let last = self.agent.path().rsplit('/').next().unwrap_or_default();
        with(&Question {
            caller: &caller,
            agent: &self.agent,
            agent_name: self.agent_name.as_deref().unwrap_or(last),
            operation: self.operation,
            method: &self.method,
            params: self.params.as_ref(),
            at: self.at,
            protocol: self.context.protocol.as_deref().unwrap_or("a2a/1.0"),
            remote_addr: self.context.remote_addr.as_deref().unwrap_or("127.0.0.1:50000"),
            request_id: self.context.request_id.as_deref().unwrap_or("explain"),
            task_id: self.context.task_id.as_deref(),
            context_id: self.context.context_id.as_deref(),
        })
    }

    /// Reads an input document: that of a decision log, or one written by hand in any of the
    /// dialects. What stands in it twice has to be the same.
    pub(crate) fn of_input(text: &str) -> Result<Self, Failure> {
        let fail = |message: String| Failure::new(Code::Usage, format_args!("--input {message}"));
        let json: Value =
            serde_json::from_str(text).map_err(|error| fail(format!("is not JSON: {error}")))?;
        let mut input = Input::of(json).map_err(fail)?;
        let asking = input.asking().map_err(fail)?;
        match input.left() {
            None => Ok(asking),
            Some(path) => Err(fail(format!("has `{path}`, which no request has"))
                .hint("`convoke policy lint` says which fields there are")),
        }
    }
}

/// An input document, from which one field after the other is taken.
struct Input(serde_json::Map<String, Value>);

impl Input {
    fn of(json: Value) -> Result<Self, String> {
        match json {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err("is not a JSON object".to_owned()),
        }
    }

    /// Takes the value at `path`, which has one or two parts.
    fn take(&mut self, path: &str) -> Option<Value> {
        match path.split_once('.') {
            None => self.0.remove(path),
            Some((section, name)) => self.0.get_mut(section)?.as_object_mut()?.remove(name),
        }
    }

    /// Takes a text that may stand at any of `paths`.
    fn text(&mut self, paths: &[&str]) -> Result<Option<String>, String> {
        let mut found: Option<String> = None;
        for path in paths {
            match (self.take(path), &found) {
                (None, _) => {}
                (Some(Value::String(text)), None) => found = Some(text),
                (Some(Value::String(text)), Some(other)) if text == *other => {}
                (Some(Value::String(text)), Some(other)) => {
                    return Err(format!(
                        "says both `{other}` and `{text}` at {}",
                        paths.join(", ")
                    ));
                }
                (Some(_), _) => return Err(format!("has no text at `{path}`")),
            }
        }
        Ok(found)
    }

    fn asking(&mut self) -> Result<Asking, String> {
        let caller = match self.text(&["caller.spiffe_id", "caller_spiffe_id"])? {
            Some(id) => id.parse()?,
            None => Who::Anonymous,
        };
        let agent = self
            .text(&["agent.spiffe_id", "callee_spiffe_id", "resource_spiffe_id"])?
            .ok_or("has no `agent.spiffe_id`")?;
        let agent = SpiffeId::parse(&agent).map_err(|error| format!("has `{agent}`: {error}"))?;
        let method =
            self.text(&["request.method", "action", "method"])?.ok_or("has no `request.method`")?;
        let params = match self.take("request.params") {
            None => None,
            Some(params) => Some(Json::of(&params).map_err(|error| error.to_string())?),
        };
        let operation = match self.text(&["request.operation"])? {
            Some(name) => operation(&name)?,
            None => OperationKind::SendMessage,
        };
        let at = match self.text(&["request.timestamp", "timestamp"])? {
            Some(text) => instant(&text)?,
            None => now(),
        };
        let asking = Asking {
            agent_name: self.text(&["agent.name"])?,
            method,
            params,
            operation,
            at,
            context: Context {
                protocol: self.text(&["request.protocol"])?,
                remote_addr: self.text(&["context.remote_addr"])?,
                request_id: self.text(&["context.request_id"])?,
                task_id: self.text(&["context.task_id"])?,
                context_id: self.text(&["context.context_id"])?,
            },
            caller,
            agent,
        };
        // What follows from the two SPIFFE IDs is made anew, so it may not say anything else.
        let derived: [(&str, Option<String>); 7] = asking.with(|question| {
            let caller = match question.caller {
                Caller::Principal(principal) => Some(Arc::clone(principal)),
                Caller::Anonymous => None,
            };
            let of = |value: fn(&Principal) -> &str| caller.as_deref().map(|c| value(c).to_owned());
            [
                ("caller.trust_domain", of(|c| c.spiffe_id.trust_domain_str())),
                ("caller_trust_domain", of(|c| c.spiffe_id.trust_domain_str())),
                ("caller.path", of(|c| c.spiffe_id.path())),
                ("caller.tenant", of(|c| &c.tenant)),
                ("caller.trust_level", of(|c| c.trust_level.as_str())),
                ("agent.trust_domain", Some(question.agent.trust_domain_str().to_owned())),
                ("resource_trust_domain", Some(question.agent.trust_domain_str().to_owned())),
            ]
        });
        for (path, expected) in derived {
            let said = self.text(&[path])?;
            if let Some(said) = said.filter(|said| expected.as_ref() != Some(said)) {
                return Err(match expected {
                    Some(expected) => {
                        format!("says `{said}` at `{path}`, which is `{expected}` by the SPIFFE ID")
                    }
                    None => format!("says `{said}` at `{path}` of a caller without a SPIFFE ID"),
                });
            }
        }
        if self.0.get("delegation").is_some_and(is_no_delegation) {
            self.0.remove("delegation");
        }
        Ok(asking)
    }

    /// The path of something that nobody took.
    fn left(&self) -> Option<String> {
        self.0.iter().find_map(|(name, value)| match value {
            Value::Object(below) if below.is_empty() => None,
            Value::Object(below) => below.keys().next().map(|key| format!("{name}.{key}")),
            _ => Some(name.clone()),
        })
    }
}

/// Whether this is what stands at `delegation` while there is none.
fn is_no_delegation(value: &Value) -> bool {
    *value == serde_json::json!({"chain": [], "depth": 0, "scope": []})
}

impl std::str::FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "anonymous" => Ok(Self::Anonymous),
            id => match SpiffeId::parse(id) {
                Ok(id) => Ok(Self::Agent(id)),
                Err(error) => {
                    Err(format!("`{id}` is neither a SPIFFE ID nor `anonymous`: {error}"))
                }
            },
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Agent(id) => id.fmt(f),
        }
    }
}

/// Reads the name of an operation.
pub(crate) fn operation(name: &str) -> Result<OperationKind, String> {
    OperationKind::ALL.iter().copied().find(|kind| kind.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("`{name}` is no operation; there are {}", known.join(", "))
    })
}

/// The machine's time.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Reads `2026-12-31T23:59:59Z`, with or without a fraction of a second.
pub(crate) fn instant(text: &str) -> Result<UnixMillis, String> {
    let read = || -> Option<u64> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let number = |text: &str, digits: usize| {
            let is_plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
            if is_plain { text.parse::<u64>().ok() } else { None }
        };
        let [year, month, day]: [&str; 3] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second]: [&str; 3] =
            time.split(':').collect::<Vec<_>>().try_into().ok()?;
        let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
        let millis = number(&format!("{fraction:0<3}"), 3)?;
        let is_leap = |year: u64| {
            (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
        };
        let days_of = |month: u64| match month {
            4 | 6 | 9 | 11 => 30,
            2 if is_leap(year) => 29,
            2 => 28,
            _ => 31,
        };
        let in_range = year >= 1970
            && (1..=12).contains(&month)
            && (1..=days_of(month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        if !in_range {
            return None;
        }
        let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
        let months: u64 = (1..month).map(days_of).sum();
        let days = years + months + day - 1;
        Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
    };
    read().map(UnixMillis).ok_or_else(|| {
        format!("`{text}` is no instant in UTC; write for example 2026-12-31T23:59:59Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_they_are_written() {
        for millis in [0, 951_782_400_000, 1_709_164_800_000, 1_798_761_599_001, 4_102_444_799_999]
        {
            let at = UnixMillis(millis);
            assert_eq!(instant(&at.to_string()), Ok(at));
        }
        assert_eq!(instant("1970-01-01T00:00:01Z"), Ok(UnixMillis(1000)));
        assert_eq!(instant("1970-01-01T00:00:01.5Z"), Ok(UnixMillis(1500)));
        for wrong in [
            "",
            "now",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+01:00",
            "2026-1-1T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01T00:00:00.1234Z",
        ] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_input_document_is_a_question() {
        let whole = r#"{
            "caller": {"spiffe_id": "spiffe://a/b", "trust_domain": "a", "path": "/b", "tenant": "a", "trust_level": "verified"},
            "agent": {"spiffe_id": "spiffe://c/d", "trust_domain": "c", "name": "D"},
            "request": {"method": "m", "operation": "GetTask", "params": {"x": 1}, "timestamp": "1970-01-01T00:00:01Z", "protocol": "a2a/0.3"},
            "context": {"remote_addr": "1.2.3.4:5", "request_id": "r", "task_id": "t", "context_id": "c"},
            "delegation": {"chain": [], "depth": 0, "scope": []},
            "caller_spiffe_id": "spiffe://a/b", "callee_spiffe_id": "spiffe://c/d",
            "resource_spiffe_id": "spiffe://c/d", "action": "m", "method": "m",
            "caller_trust_domain": "a", "resource_trust_domain": "c",
            "timestamp": "1970-01-01T00:00:01Z"
        }"#;
        let asking = Asking::of_input(whole).unwrap();
        asking.with(|question| {
            let expected: Value = serde_json::from_str(whole).unwrap();
            let mut built: Value = serde_json::from_slice(&question.to_json()).unwrap();
            // Instants are written with their milliseconds.
            for timestamp in ["/request/timestamp", "/timestamp"] {
                *built.pointer_mut(timestamp).unwrap() = "1970-01-01T00:00:01Z".into();
            }
            assert_eq!(built, expected);
        });
        let flat = r#"{"callee_spiffe_id": "spiffe://c/d", "action": "m"}"#;
        assert_eq!(Asking::of_input(flat).unwrap().caller, Who::Anonymous);
    }

    #[test]
    fn an_input_document_that_no_request_has_is_refused() {
        let check = |more: &str, expected: &str| {
            let text =
                format!(r#"{{"agent": {{"spiffe_id": "spiffe://c/d"}}, "action": "m"{more}}}"#);
            let failure = Asking::of_input(&text).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (Code::Usage, expected));
        };
        check(r#", "x": 1"#, "--input has `x`, which no request has");
        check(r#", "request": {"x": 1}"#, "--input has `request.x`, which no request has");
        check(
            r#", "request": {"method": "n"}"#,
            "--input says both `n` and `m` at request.method, action, method",
        );
        check(
            r#", "caller": {"spiffe_id": "spiffe://a/b", "path": "/c"}"#,
            "--input says `/c` at `caller.path`, which is `/b` by the SPIFFE ID",
        );
        check(
            r#", "caller": {"path": "/c"}"#,
            "--input says `/c` at `caller.path` of a caller without a SPIFFE ID",
        );
    }
}
