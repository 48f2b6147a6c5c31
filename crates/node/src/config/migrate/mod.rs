//! Turns the reference's other shapes of configuration into this one.
//!
//! Nothing is guessed in silence: each key says where it comes from, what has no meaning here is
//! listed with the reason, and what a person has to decide stands at the top. The result is what
//! the reader takes; a value that it refuses is left out and becomes a decision.

mod dropped;
mod write;

use super::foreign::translate;
use super::keys::{self, Entry, KEYS, Key as Row, Kind, Millis};
use super::text::{join, quote, sounds_secret};
use super::yaml::{Node, Value};
use super::{Config, ConfigError, Environment, Problem, yaml};

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
}

/// What has been found so far.
struct Work {
    shape: Shape,
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
    let mut tree = yaml::parse(text).map_err(|mut problem| {
        if text.contains("{{") {
            problem.cure = Some("it is a template: render it first, as in `helm template`".into());
        }
        ConfigError::new(name, vec![*problem])
    })?;
    let is_inner = config_map(&tree).is_some();
    if let Some(inner) = config_map(&tree) {
        tree = yaml::parse(inner).map_err(|problem| ConfigError::new(name, vec![*problem]))?;
    }
    if !matches!(tree.value, Value::Map(_)) {
        let message = format!("the file is {}, not a mapping", tree.value.kind());
        return Err(ConfigError::new(name, vec![Problem::of_key("", message, None)]));
    }
    let shape = Shape::of(&tree);
    let mut work = Work { shape, mapped: Vec::new(), dropped: Vec::new(), decisions: Vec::new() };
    work.walk(&tree, "");
    work.complete(&tree);
    if is_inner {
        // Lines were counted from where the inner text begins.
        work.dropped.iter_mut().for_each(|dropped| dropped.line = None);
    }
    Ok(work.finish(name))
}

/// The configuration inside a Kubernetes ConfigMap, if `tree` is one.
fn config_map(tree: &Node) -> Option<&str> {
    match (&tree.entry("kind")?.value, &tree.entry("data")?.value) {
        (Value::Text(kind), Value::Map(data)) if kind == "ConfigMap" => {
            data.iter().find_map(|(key, node)| match &node.value {
                Value::Text(text) if key.name.ends_with("yaml") => Some(text.as_str()),
                _ => None,
            })
        }
        _ => None,
    }
}

impl Shape {
    fn of(tree: &Node) -> Self {
        if ["global", "spiffe", "opa", "image", "replicaCount"]
            .iter()
            .any(|key| tree.entry(key).is_some())
        {
            Self::Helm
        } else if tree.entry("agent").is_some() || tree.entry("transport").is_some() {
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
            if self.is_special(&path) || matches!(node.value, Value::Null) {
                continue;
            }
            let own = self.own(&path);
            if let Some(row) = self.row(&path, own.is_some()) {
                let to = own.filter(|own| own.path == row.path).map_or(row.path, |_| path.as_str());
                self.map(&path, row, to, node);
            } else if self.shape == Shape::Ours && is_open(&path) {
                let (value, note) = (node.value.clone(), String::new());
                self.mapped.push(Mapped { path, row: None, value, note });
            } else if matches!(node.value, Value::Map(_))
                && (!dropped::is_whole(&path) || has_names_below(&path))
            {
                self.walk(node, &path);
            } else {
                let (line, why) = (key.at.known().0, dropped::why(&path));
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

    fn map(&mut self, from: &str, row: &'static Row, to: &str, node: &Node) {
        let shown = if sounds_secret(from) {
            "***".to_owned()
        } else {
            quote(&node.value.to_json().to_string())
        };
        let value = match &node.value {
            Value::Text(text) if text.contains("${") => {
                self.decisions.push(format!(
                    "`{from}` was {shown}: nothing is put in for `${{…}}` here; set the \
                     environment variable {} instead",
                    super::overrides::name_of(to)
                ));
                return;
            }
            Value::Text(text) => match translate(row, text) {
                Ok(text) => row.value_of(text),
                Err(why) => {
                    self.decisions.push(format!("`{from}` was {shown}: {why}"));
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
        self.mapped.push(Mapped { path: to.to_owned(), row: Some(row), value, note });
    }

    /// Whether the key means more than one here, or none by itself: [`Work::complete`] reads it.
    fn is_special(&self, path: &str) -> bool {
        const SPECIAL: [&str; 5] = [
            "authorization.provider",
            "authorization.audit.enabled",
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
        let domain = text("agent.trust_domain").or_else(|| text("global.trustDomain"));
        if let (Some(name), Some(domain)) = (text("agent.name"), domain) {
            self.add(
                "identity.spiffe_id",
                &format!("spiffe://{domain}/agent/{name}"),
                "to be decided",
            );
            self.decisions.push(
                "`identity.spiffe_id` is what that shape's program makes of name and trust domain; \
                 compare it with the registration entry of the agent"
                    .to_owned(),
            );
        }
        let allows_all = text("authorization.provider") == Some("allow-all")
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
        if flag("authorization.audit.enabled") == Some(false) {
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
        self.mapped.push(Mapped { path: path.to_owned(), row: Some(row), value, note });
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
            self.decisions.push(format!("{refused}; it is left out until that is decided"));
            let path = refused.path.clone();
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
