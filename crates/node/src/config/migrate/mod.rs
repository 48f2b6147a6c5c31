//! Turns the reference's other shapes of configuration into this one.
//!
//! Nothing is guessed in silence: each key says where it comes from, what has no meaning here is
//! listed with the reason, and what a person has to decide stands at the top. The result is what
//! the reader takes; a value that it refuses is left out and becomes a decision.

mod dropped;
mod manifest;
mod write;

use super::foreign::translate;
use super::keys::{self, Entry, KEYS, Key as Row, Kind, Millis};
use super::text::{REDACTED, join, quote, sounds_secret, without_secrets};
use super::yaml::{Key, Node, Value};
use super::{Config, ConfigError, Environment, Problem};

/// Most rounds of leaving out what the reader refuses; each leaves out one key at least.
const ROUNDS_MAX: usize = 64;

/// A configuration in this shape, made of one in another.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// The configuration, with comments that say where each key comes from.
    pub text: String,
    /// Which shape the original has, in words.
    pub shape: &'static str,
    /// What a person has to decide, one sentence each.
    pub decisions: Vec<String>,
    /// What has no meaning here.
    pub dropped: Vec<Dropped>,
    /// What is still wrong with `text`; `None` if it loads.
    pub problems: Option<ConfigError>,
}

/// A key that has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The key in the original, with dots.
    pub path: String,
    /// Its line in the original, from 1.
    pub line: Option<usize>,
    /// Why.
    pub why: &'static str,
}

/// The shapes, by what only they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `agent`, `identity`, `authorization`, `transport`, `server`: the API reference and the core
    /// concepts.
    Reference,
    /// Helm values, with capitals within names.
    Helm,
    /// This one, or a tutorial of the seed's reference with keys beside it.
    Ours,
}

/// A value of this shape on its way into the new text.
#[derive(Debug, Clone)]
struct Mapped {
    /// The path here, and the one in the table.
    path: String,
    row: Option<&'static Row>,
    value: Value,
    /// What the comment behind it says.
    note: String,
    /// Where it comes from in the original, as decisions begin; empty if it is made of other keys.
    origin: String,
}

/// What has been found so far.
struct Work {
    shape: Shape,
    /// Lines of the tree are lines of the file.
    has_lines: bool,
    mapped: Vec<Mapped>,
    dropped: Vec<Dropped>,
    decisions: Vec<String>,
}

/// Turns `text`, called `name`, into this shape.
///
/// # Errors
///
/// If `text` is not a mapping in YAML. What is wrong with the result is in
/// [`Migration::problems`].
pub fn migrate(text: &str, name: &str) -> Result<Migration, ConfigError> {
    let manifest::Found { tree, is_inner } =
        manifest::find(text).map_err(|problem| ConfigError::new(name, vec![*problem]))?;
    if !matches!(tree.value, Value::Map(_)) {
        let message = format!("the file is {}, not a mapping", tree.value.kind());
        return Err(ConfigError::new(name, vec![Problem::of_key("", message, None)]));
    }
    let shape = Shape::of(&tree);
    let mut work = Work {
        shape,
        has_lines: !is_inner,
        mapped: Vec::new(),
        dropped: Vec::new(),
        decisions: Vec::new(),
    };
    work.walk(&tree, "");
    work.complete(&tree);
    Ok(work.finish(name))
}

impl Shape {
    fn of(tree: &Node) -> Self {
        /// Keys of which each shape has one at least, and the one after it none.
        const HELM: [&str; 7] = [
            "global",
            "spiffe",
            "opa",
            "image",
            "replicaCount",
            "agent.trustDomain",
            "authorization.opaEndpoint",
        ];
        const REFERENCE: [&str; 6] = [
            "agent",
            "transport",
            "authz",
            "authorization.provider",
            "authorization.opa_endpoint",
            "identity.spiffe_endpoint",
        ];
        let has = |keys: &[&str]| keys.iter().any(|key| tree.below(key).is_some());
        if has(&HELM) {
            Self::Helm
        } else if has(&REFERENCE) {
            Self::Reference
        } else {
            Self::Ours
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Reference => "the shape of AgentWeave's API reference",
            Self::Helm => "the values of AgentWeave's Helm chart",
            Self::Ours => "this shape already",
        }
    }
}

impl Work {
    /// Maps or drops everything below `node`.
    fn walk(&mut self, node: &Node, path: &str) {
        let Value::Map(entries) = &node.value else { return };
        for (key, node) in entries {
            let path = join(path, &key.name);
            if matches!(node.value, Value::Null) {
                continue;
            }
            if self.is_special(&path) {
                self.understand(key, &path, node);
                continue;
            }
            let own = self.own(&path);
            if let Some(row) = self.row(&path, own.is_some()) {
                let to = own.filter(|own| own.path == row.path).map_or(row.path, |_| path.as_str());
                self.map(key, &path, row, to, node);
            } else if self.shape == Shape::Ours && is_open(&path) {
                let (value, note) = (node.value.clone(), String::new());
                let origin = self.origin(key, &path);
                self.mapped.push(Mapped { path, row: None, value, note, origin });
            } else if matches!(node.value, Value::Map(_))
                && (!dropped::is_whole(&path) || has_names_below(&path))
            {
                self.walk(node, &path);
            } else {
                let (line, why) = (self.line(key), dropped::why(&path));
                self.dropped.push(Dropped { path, line, why });
            }
        }
    }

    /// The row of the table that the key at `path` of this shape goes to.
    fn row(&self, path: &str, is_own: bool) -> Option<&'static Row> {
        let foreign = || KEYS.iter().find(|row| row.was.contains(&path));
        // In the other shapes some names mean something else than here.
        match self.shape {
            Shape::Ours if is_own => self.own(path),
            Shape::Ours => foreign(),
            Shape::Reference | Shape::Helm => foreign().or_else(|| self.own(path)),
        }
        .filter(|row| !matches!(row.kind, Kind::Refused(_)))
    }

    /// The row of the table at `path` itself, with names of the user's as such.
    fn own(&self, path: &str) -> Option<&'static Row> {
        let mut pattern = "";
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            match keys::child(pattern, segment)? {
                Entry::Section(row) => pattern = row.pattern(),
                Entry::Key(row) => return segments.peek().is_none().then_some(row),
            }
        }
        None
    }

    /// The line of a key in the file, if that is known.
    fn line(&self, key: &Key) -> Option<usize> {
        key.at.known().0.filter(|_| self.has_lines)
    }

    /// How a sentence begins that is about the key at `path` of the original.
    fn origin(&self, key: &Key, path: &str) -> String {
        let line = self.line(key).map(|line| format!("line {line}, ")).unwrap_or_default();
        format!("{line}`{}`", quote(path))
    }

    fn map(&mut self, key: &Key, from: &str, row: &'static Row, to: &str, node: &Node) {
        let origin = self.origin(key, from);
        let name = from.rsplit('.').next().unwrap_or(from);
        let shown = if sounds_secret(name) {
            REDACTED.to_owned()
        } else {
            quote(&without_secrets(&node.value.to_json().to_string()))
        };
        let value = match &node.value {
            Value::Text(text) if text.contains("${") => {
                self.decisions.push(format!(
                    "{origin}, was {shown}: nothing is put in for `${{…}}` here; set the \
                     environment variable {} instead",
                    super::overrides::name_of(to)
                ));
                return;
            }
            Value::Text(text) => match translate(row, text) {
                Ok(text) => row.value_of(text),
                Err(why) => {
                    self.decisions.push(format!("{origin}, was {shown}: {why}"));
                    return;
                }
            },
            Value::Number(number) if matches!(row.kind, Kind::Duration(..)) => {
                match number.as_f64().map(seconds) {
                    Some(Some(millis)) => Value::Text(Millis(millis).to_string()),
                    _ => node.value.clone(),
                }
            }
            other => other.clone(),
        };
        let note = match &value {
            _ if from != to => format!("from {from}"),
            Value::Text(text) if node.value.as_text() != Some(text) => format!("was {shown}"),
            _ => String::new(),
        };
        // Two keys of a shape may mean the same here.
        if let Some(first) = self.mapped.iter().find(|mapped| mapped.path == to) {
            if first.value.to_json() != value.to_json() {
                self.decisions.push(format!(
                    "{origin}, was {shown}, and another key says something else of `{to}`"
                ));
            }
            return;
        }
        self.mapped.push(Mapped { path: to.to_owned(), row: Some(row), value, note, origin });
    }

    /// Has a person look at what a special key says, if it is none of what [`Work::complete`] reads.
    fn understand(&mut self, key: &Key, path: &str, node: &Node) {
        let is_understood = match &node.value {
            Value::Text(word) => {
                path.ends_with(".provider") && ["opa", "allow-all"].contains(&&**word)
            }
            Value::Bool(_) => !path.ends_with(".provider"),
            _ => false,
        };
        if !is_understood {
            let shown = quote(&node.value.to_json().to_string());
            let origin = self.origin(key, path);
            self.decisions.push(format!("{origin}, was {shown}, which has no meaning here"));
        }
    }

    /// Whether the key means more than one here, or none by itself: [`Work::complete`] reads it.
    fn is_special(&self, path: &str) -> bool {
        const SPECIAL: [&str; 7] = [
            "authorization.provider",
            "authz.provider",
            "authorization.audit.enabled",
            "observability.audit.enabled",
            "opa.enabled",
            "spiffe.enabled",
            "transport.circuit_breaker.enabled",
        ];
        self.shape != Shape::Ours && SPECIAL.contains(&path)
    }

    /// Adds what the other shapes say by several keys, or by none.
    fn complete(&mut self, tree: &Node) {
        if self.shape == Shape::Ours {
            return;
        }
        let text = |path: &str| match tree.below(path).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let flag = |path: &str| match tree.below(path).map(|node| &node.value) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        };
        let domains = ["agent.trust_domain", "agent.trustDomain", "global.trustDomain"];
        let domain = domains.iter().find_map(|path| text(path));
        let domain = domain.or_else(|| text("identity.trust_domain"));
        let is_named = self.mapped.iter().any(|mapped| mapped.path == "identity.spiffe_id");
        if let (Some(name), Some(domain), false) = (text("agent.name"), domain, is_named) {
            let (id, makes) = match self.shape {
                // The chart registers the agent so, and has an environment if nothing says one.
                Shape::Helm => {
                    let stage = text("agent.environment").unwrap_or("prod");
                    (format!("spiffe://{domain}/agent/{name}/{stage}"), "that chart registers")
                }
                _ => (format!("spiffe://{domain}/agent/{name}"), "that shape's program makes"),
            };
            self.add("identity.spiffe_id", &id, "to be decided");
            self.decisions.push(format!(
                "`identity.spiffe_id` is what {makes} of name and trust domain; compare it with the \
                 registration entry of the agent"
            ));
        }
        let allows_all = text("authorization.provider") == Some("allow-all")
            || text("authz.provider") == Some("allow-all")
            || flag("opa.enabled") == Some(false);
        if allows_all {
            self.mapped.retain(|mapped| !mapped.path.starts_with("authorization."));
            self.decisions.push(
                "that shape allowed every call; `deny_all` stands here until there is a policy"
                    .to_owned(),
            );
            self.add("authorization.default_policy", "deny_all", "to be decided");
        } else {
            self.add("authorization.opa.enabled", "true", "that shape asks an OPA server");
            self.decisions.push(
                "an OPA server decides, as in that shape; name its policy in \
                 `authorization.policy_file` instead, without `authorization.opa`, and no server \
                 is needed"
                    .to_owned(),
            );
        }
        let audits = ["authorization.audit.enabled", "observability.audit.enabled"];
        if audits.iter().any(|path| flag(path) == Some(false)) {
            self.decisions
                .push("the audit log was off; here it has no switch, and is on".to_owned());
        }
        if flag("transport.circuit_breaker.enabled") == Some(false) {
            self.mapped.retain(|mapped| !mapped.path.starts_with("calls.breaker."));
            self.add("calls.breaker.failures_max", "0", "from transport.circuit_breaker.enabled");
        }
        if flag("spiffe.enabled") == Some(false) {
            self.decisions.push(
                "SPIFFE was off; name the certificate in `identity.files`, with `provider: files`"
                    .to_owned(),
            );
        }
        if text("agent.environment").is_none() {
            self.decisions.push(
                "`environment` was not said, which meant production in that shape; write \
                 `environment: production` when the rest is decided"
                    .to_owned(),
            );
        }
    }

    fn add(&mut self, path: &'static str, text: &str, note: &str) {
        let Some(row) = keys::find(path) else { return };
        let (value, note) = (row.value_of(text), note.to_owned());
        self.mapped.retain(|mapped| mapped.path != path);
        let (path, origin) = (path.to_owned(), String::new());
        self.mapped.push(Mapped { path, row: Some(row), value, note, origin });
    }

    /// Writes the text, and leaves out what the reader refuses until it takes the rest.
    fn finish(mut self, name: &str) -> Migration {
        let order = |mapped: &Mapped| {
            let own = mapped.row.map(|row| row.path);
            KEYS.iter().position(|row| Some(row.path) == own).unwrap_or(usize::MAX)
        };
        self.mapped.sort_by_key(order);
        for _ in 0..ROUNDS_MAX {
            let text = write::text(&self, name);
            let problems = check(&text, name).err();
            let refused = problems
                .iter()
                .flat_map(|error| &error.problems)
                .find(|problem| self.mapped.iter().any(|mapped| mapped.path == problem.path));
            let Some(refused) = refused else {
                let (shape, decisions, dropped) =
                    (self.shape.words(), self.decisions, self.dropped);
                return Migration { text, shape, decisions, dropped, problems };
            };
            let path = refused.path.clone();
            let left_out = self.mapped.iter().filter(|mapped| mapped.path == path);
            let origin: String = left_out.map(|mapped| mapped.origin.as_str()).collect();
            let from = if origin.is_empty() { origin } else { format!("{origin}: ") };
            // Its line is one of the result, which the next round writes anew.
            let Problem { message, cure, .. } = refused;
            let cure = cure.as_deref().map(|cure| format!("; {cure}")).unwrap_or_default();
            self.decisions
                .push(format!("{from}{message}{cure}; it is left out until that is decided"));
            self.mapped.retain(|mapped| mapped.path != path);
        }
        let problems = check(&write::text(&self, name), name).err();
        Migration {
            text: write::text(&self, name),
            shape: self.shape.words(),
            decisions: self.decisions,
            dropped: self.dropped,
            problems,
        }
    }
}

/// Whether `text` loads, wherever that may be: what only this machine says counts as given.
fn check(text: &str, name: &str) -> Result<(), ConfigError> {
    let env = Environment { home: Some("/".into()), ..Environment::default() };
    Config::parse_in(text, name, &env).map(drop)
}

/// Whether the key is below a section that takes keys of the user's own.
fn is_open(path: &str) -> bool {
    path.split_once('.')
        .is_some_and(|(section, _)| keys::section(section).is_some_and(|section| section.is_open))
}

/// Whether some key of the other shapes below the mapping at `path` has a place here.
fn has_names_below(path: &str) -> bool {
    let is_below = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(|row| row.was.iter().any(|name| is_below(name)) || is_below(row.path))
}

/// A number of seconds in milliseconds, if it is one that a duration can have.
fn seconds(number: f64) -> Option<u64> {
    let millis = (number * 1000.0).round();
    // A day is the longest of all durations; beyond, the reader names the range.
    (0.0..=1e12).contains(&millis).then_some(millis as u64)
}
