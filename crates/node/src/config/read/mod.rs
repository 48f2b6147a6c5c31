//! What the keys of a configuration become, and what they may not say together.
//!
//! Each part is read whole before it is put together, so that all of its problems are reported; a
//! part that has one is `None`, and so is the configuration.

mod authorization;
mod calls;
mod forms;
mod identity;
mod observability;
mod production;
mod secrets;
mod server;
mod warnings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use convoke_agent::Metadata;
use convoke_journal::Durability;

use super::error::Problem;
use super::identity::{Positions, named};
use super::reader::{Report, Section};
use super::settings::Setting;
use super::{
    Config, ConfigError, Environment, IdentityConfig, JournalConfig, MetricsConfig, ServerConfig,
    Stage, TasksConfig, overrides, unknown, yaml,
};

/// Line and column of something in the file, as far as they are known.
pub(super) type Position = (Option<usize>, Option<usize>);

/// Reads and checks `text` with what `env` says on top, reporting all that is wrong with it.
pub(super) fn config(
    text: &str,
    name: &str,
    env: &Environment,
) -> Result<(Config, Vec<Setting>), ConfigError> {
    let mut tree = yaml::parse(text).map_err(|problem| ConfigError::new(name, vec![*problem]))?;
    let report = Report::default();
    if Section::root(&tree, &report).is_wrong() {
        return Err(ConfigError::new(name, report.into_parts().0));
    }
    unknown::check(&tree, "", "", &report);
    let mut notes = overrides::apply(&mut tree, &env.variables, &report);
    let root = Section::root(&tree, &report);
    let config = whole(&root, name, env, &report);
    let (problems, settings) = report.into_parts();
    match config {
        Some(mut config) if problems.is_empty() => {
            notes.append(&mut config.warnings);
            config.warnings = notes;
            Ok((config, settings))
        }
        _ if problems.is_empty() => {
            let message = "the reader refuses it without a reason".to_owned();
            let cure = Some("this is a fault of Convoke's; report it");
            Err(ConfigError::new(name, vec![Problem::of_key("", message, cure)]))
        }
        _ => Err(ConfigError::new(name, problems)),
    }
}

fn whole(root: &Section<'_>, name: &str, env: &Environment, report: &Report) -> Option<Config> {
    let identity = identity::read(&root.section("identity"), env);
    let authorization = authorization::read(&root.section("authorization"), env);
    let server = server::read(&root.section("server"));
    let calls = calls::read(&root.section("calls"), &Default::default());
    let agent_registry = calls::registry(root, calls.as_ref());
    let observability = observability::read(&root.section("observability"), env);
    let metadata = metadata(&root.section("metadata"), identity.as_ref());
    let stage = root.word(
        "environment",
        &[
            ("development", Stage::Development),
            ("staging", Stage::Staging),
            ("production", Stage::Production),
        ],
    );
    let journal = journal(&root.section("journal"));
    let tasks = tasks(&root.section("tasks"));
    let data_dir = root.text("data_dir").map(PathBuf::from).or_else(|| {
        // Without an identity the file is refused anyway, and for a better reason.
        let identity = identity.as_ref().filter(|_| !root.has("data_dir"))?;
        let found = env.data_dir(&identity.spiffe_id);
        match &found {
            Some(found) => root.worked_out("data_dir", found.display()),
            None => root.missing("data_dir", "set it, CONVOKE_DATA_DIR, XDG_STATE_HOME or HOME"),
        }
        found
    });
    if let (Some(server), Some(observability)) = (&server, &observability)
        && let Some(metrics) = &observability.metrics
        && collide(server, metrics)
    {
        let section = root.section("observability").section("metrics");
        let message =
            format!("`observability.metrics.port` and `server.port` are both {}", server.port);
        section.problem("port", &message, Some("give metrics a port of its own"));
    }
    let (data_dir, metadata) = (data_dir?, metadata?);
    let files_at = identity.as_ref().map(|identity| files_at(root, identity)).unwrap_or_default();
    let observability = observability?.finish(root, &data_dir, &metadata);
    let authorization = authorization?.finish(root, &data_dir);
    let config = Config {
        file: PathBuf::from(name),
        identity: identity?,
        authorization,
        server: server?,
        agent_registry: agent_registry?,
        calls: calls?,
        observability,
        metadata,
        stage,
        journal: journal?.finish(root, &data_dir),
        tasks: tasks?,
        data_dir,
        policy_at: root
            .place("authorization.policy_file")
            .map(yaml::Place::known)
            .unwrap_or_default(),
        files_at,
        warnings: Vec::new(),
    };
    if stage == Some(Stage::Production) {
        production::check(&config, root, report);
    }
    Some(Config { warnings: warnings::of(&config), ..config })
}

/// Where the paths of the identity's files are written.
fn files_at(root: &Section<'_>, identity: &IdentityConfig) -> Positions {
    let Some(files) = &identity.files else { return Positions::new() };
    let known = named(files).filter_map(|(key, _)| {
        let place = match key.strip_prefix("identity.files.federated.") {
            // The names of trust domains have dots of their own.
            Some(domain) => {
                root.section("identity").section("files").section("federated").place_of(domain)
            }
            None => root.place(&key),
        };
        Some((key, place?.known()))
    });
    known.collect()
}

fn metadata(section: &Section<'_>, identity: Option<&IdentityConfig>) -> Option<Metadata> {
    let name = match section.has("name") {
        true => section.text("name"),
        false => {
            section.text("name");
            let last = identity.and_then(|own| own.spiffe_id.path().rsplit('/').next());
            let name = last.unwrap_or_default().to_owned();
            section.worked_out("name", &name);
            Some(name)
        }
    };
    let version = section.text("version");
    let description = section.parsed("description", |text| Ok::<_, String>(text.to_owned()));
    Some(Metadata {
        name: name?,
        version: version?,
        description: description.unwrap_or_default(),
        extra: section.rest().into_iter().collect(),
    })
}

/// `journal` before the data directory is known.
struct Journal {
    durability: Durability,
    path: Option<PathBuf>,
    keep_ended: Option<Duration>,
    keep_tasks: u64,
}

fn journal(section: &Section<'_>) -> Option<Journal> {
    let words = [
        ("memory", Durability::Memory),
        ("relaxed", Durability::Relaxed),
        ("strict", Durability::Strict),
    ];
    let durability = section.word("durability", &words);
    let path = section.text("path").map(PathBuf::from);
    let keep_ended = section.duration_or_never("keep_ended");
    let keep_tasks = section.number("keep_tasks");
    Some(Journal {
        durability: durability?,
        path,
        keep_ended: keep_ended?,
        keep_tasks: keep_tasks?,
    })
}

impl Journal {
    fn finish(self, root: &Section<'_>, data_dir: &Path) -> JournalConfig {
        let path = self.path.unwrap_or_else(|| {
            let path = data_dir.join("journal");
            root.worked_out("journal.path", path.display());
            path
        });
        let Self { durability, keep_ended, keep_tasks, .. } = self;
        JournalConfig { durability, path, keep_ended, keep_tasks }
    }
}

fn tasks(section: &Section<'_>) -> Option<TasksConfig> {
    let concurrency_max = section.number("concurrency_max");
    let queue_max = section.number("queue_max");
    Some(TasksConfig { concurrency_max: concurrency_max?, queue_max: queue_max? })
}

/// Whether both listeners would ask for the same socket. Port 0 never collides.
fn collide(server: &ServerConfig, metrics: &MetricsConfig) -> bool {
    let same_host = server.host == metrics.host
        || server.host.is_unspecified()
        || metrics.host.is_unspecified();
    server.port != 0 && server.port == metrics.port && same_host
}
