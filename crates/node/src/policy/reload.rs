//! Replacing a policy while requests run: a changed one is loaded beside the path of requests and
//! put in place as a whole; a wrong one is refused and the last good one goes on deciding.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convoke_model::chain;
use convoke_policy::Policy;
use tokio::sync::Notify;
use tokio::task::JoinError;

use super::sources::{Sources, Stamp};
use crate::clock::Clock;
use crate::config::Config;
use crate::node::StartError;
use crate::observe::health::Health;
use crate::path_metrics::PathMetrics;

/// How long a file must not change before it is read. Editors and copies write in pieces, and a
/// piece of a policy may be a policy, with other rules.
const SETTLE: Duration = Duration::from_millis(100);

/// How often a file that goes on changing is waited for before the next regular look.
const SETTLE_TRIES: usize = 20;

/// Watches the files of one policy.
pub(super) struct Reload {
    config: Config,
    clock: Clock,
    health: Arc<Health>,
    metrics: PathMetrics,
    seen: Mutex<Seen>,
}

/// What was last looked at.
struct Seen {
    paths: Vec<PathBuf>,
    /// `None` before the first look.
    stamps: Option<Vec<Option<Stamp>>>,
    /// Of the texts that were last read, loaded or not.
    digest: String,
}

/// What a look found.
enum Found {
    /// As before.
    Same,
    /// As before, and what could not be loaded for this reason.
    StillRefused(String),
    /// The files were not left alone for long enough to be read.
    Changing,
    /// Other files, with what they make.
    Other(Result<Policy, StartError>),
}

impl Reload {
    /// Loads the policy for the first time.
    pub(super) fn open(
        config: &Config,
        clock: Clock,
        health: &Arc<Health>,
        metrics: &PathMetrics,
    ) -> Result<(Arc<Self>, Policy), StartError> {
        let sources = Sources::read(config)?;
        let policy = sources.load(&config.authorization)?;
        health.policy_changed(policy.revision(), clock.now());
        // The files may have changed since they were read; the first look finds that out.
        let seen = Seen { paths: sources.paths().to_vec(), stamps: None, digest: sources.digest() };
        let reload = Self {
            config: config.clone(),
            clock,
            health: Arc::clone(health),
            metrics: metrics.clone(),
            seen: Mutex::new(seen),
        };
        Ok((Arc::new(reload), policy))
    }

    /// Waits for another policy, as long as that takes. What cannot be loaded is said and not given.
    pub(super) async fn changed(self: &Arc<Self>, asked: &Notify) -> Policy {
        loop {
            let by_hand = self.until_the_next_look(asked).await;
            match self.look(by_hand).await {
                Ok(Found::Same) if by_hand => tracing::info!("Policy is the one that is loaded"),
                Ok(Found::StillRefused(why)) if by_hand => {
                    say_refused(&why, &self.health.policy_news().revision);
                }
                Ok(Found::Same | Found::StillRefused(_)) => {}
                Ok(Found::Changing) => {
                    tracing::warn!(
                        "Policy goes on changing and was not read; the last good one decides"
                    );
                }
                Ok(Found::Other(Ok(policy))) => {
                    let revision = policy.revision();
                    self.metrics.reloaded(true);
                    self.health.policy_changed(revision, self.clock.now());
                    tracing::info!(revision = &*revision.0, "Policy reloaded");
                    return policy;
                }
                Ok(Found::Other(Err(error))) => self.refused(&chain(&error)),
                Err(panic) => self.refused(&format!("the policy could not be loaded: {panic}")),
            }
        }
    }

    /// Whether the next look is one that somebody asked for.
    async fn until_the_next_look(&self, asked: &Notify) -> bool {
        match self.config.authorization.reload_interval {
            None => {
                asked.notified().await;
                true
            }
            Some(interval) => tokio::time::timeout(interval, asked.notified()).await.is_ok(),
        }
    }

    async fn look(self: &Arc<Self>, by_hand: bool) -> Result<Found, JoinError> {
        for _ in 0..SETTLE_TRIES {
            let this = Arc::clone(self);
            let before = tokio::task::spawn_blocking(move || this.stamps()).await?;
            if !by_hand && self.seen().stamps.as_ref() == Some(&before) {
                return Ok(Found::Same);
            }
            tokio::time::sleep(SETTLE).await;
            let this = Arc::clone(self);
            let found = tokio::task::spawn_blocking(move || this.read(&before)).await?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(Found::Changing)
    }

    /// Reads the files, unless they change meanwhile or have since `before`.
    fn read(&self, before: &[Option<Stamp>]) -> Option<Found> {
        let read = Sources::read(&self.config);
        if self.stamps() != before {
            return None;
        }
        let digest = match &read {
            Ok(sources) => sources.digest(),
            Err(error) => chain(error),
        };
        {
            let mut seen = self.seen();
            seen.stamps = Some(before.to_vec());
            if let Ok(sources) = &read {
                // The files may be found elsewhere now; the next look is at these.
                seen.paths = sources.paths().to_vec();
            }
            if seen.digest == digest {
                let refused = self.health.policy_news().refused;
                return Some(refused.map_or(Found::Same, |(_, why)| Found::StillRefused(why)));
            }
            seen.digest = digest;
        }
        Some(Found::Other(read.and_then(|sources| Ok(sources.load(&self.config.authorization)?))))
    }

    fn refused(&self, error: &str) {
        self.metrics.reloaded(false);
        let revision = self.health.policy_refused(error, self.clock.now());
        say_refused(error, &revision);
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        let paths = self.seen().paths.clone();
        paths.iter().map(|path| Stamp::of(path)).collect()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Nothing panics while it is held.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say_refused(error: &str, revision: &str) {
    tracing::error!(error, revision, "Policy was not reloaded; the last good one decides");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use convoke_model::UnixMillis;

    use super::*;

    const ALLOW: &str = "package agentweave.authz\ndefault allow := true\n";
    const DENY: &str = "package agentweave.authz\ndefault allow := false\n";

    struct Files {
        directory: tempfile::TempDir,
        health: Arc<Health>,
        reload: Arc<Reload>,
        asked: Notify,
        first: String,
    }

    impl Files {
        /// Looks every second, and has `data` as its one data file.
        fn new(policy: &str, data: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("p.rego"), policy).unwrap();
            fs::write(directory.path().join("d.json"), data).unwrap();
            let yaml = serde_json::json!({
                "identity": {"spiffe_id": "spiffe://example.org/worker"},
                "data_dir": directory.path(),
                "authorization": {
                    "policy_path": directory.path(),
                    "policy_file": "p.rego",
                    "data_files": ["d.json"],
                    "reload_interval": "1s",
                },
            });
            let config = Config::parse(&yaml.to_string(), "test.yaml").unwrap();
            let health = Arc::new(Health::new());
            let metrics = PathMetrics::default();
            let (reload, policy) = Reload::open(&config, Clock::new(), &health, &metrics).unwrap();
            let first = policy.revision().0.to_string();
            Self { directory, health, reload, asked: Notify::new(), first }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        /// The next policy, if there is one within a minute of the test's own time.
        async fn next(&self) -> Option<String> {
            let changed = self.reload.changed(&self.asked);
            let changed = tokio::time::timeout(Duration::from_secs(60), changed).await;
            changed.ok().map(|policy| policy.revision().0.to_string())
        }

        fn refused(&self) -> Option<(UnixMillis, String)> {
            self.health.policy_news().refused
        }
    }

    fn replace(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_taken_and_what_does_not_is_not() {
        let files = Files::new(ALLOW, "{}");
        assert_eq!(files.next().await, None);
        fs::write(files.path("p.rego"), ALLOW).unwrap();
        assert_eq!(files.next().await, None, "the same text is the same policy");
        fs::write(files.path("p.rego"), DENY).unwrap();
        let second = files.next().await.unwrap();
        assert_ne!(second, files.first);
        replace(&files.path("p.rego"), ALLOW);
        assert_eq!(files.next().await.as_ref(), Some(&files.first));
        fs::write(files.path("d.json"), r#"{"a": 1}"#).unwrap();
        let third = files.next().await.unwrap();
        assert!(third != files.first && third != second, "data is part of the policy");
        assert_eq!(files.health.policy_news().revision, third);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_refused_and_the_last_good_one_stays() {
        let files = Files::new(ALLOW, "{}");
        let check = |text: &'static str, name: &'static str, expected: &'static str| {
            let files = &files;
            async move {
                fs::write(files.path(name), text).unwrap();
                assert_eq!(files.next().await, None, "{text}");
                let (_, why) = files.refused().unwrap();
                assert!(why.contains(expected) && why.contains(name), "{why}");
                assert_eq!(files.health.policy_news().revision, files.first);
            }
        };
        check("", "p.rego", "package").await;
        check(&ALLOW[..ALLOW.len() - 5], "p.rego", "p.rego:").await;
        check("package other\nallow := true\n", "p.rego", "other").await;
        fs::write(files.path("p.rego"), ALLOW).unwrap();
        assert_eq!(files.next().await.as_ref(), Some(&files.first));
        assert_eq!(files.refused(), None);
        check("[1", "d.json", "JSON").await;
        fs::remove_file(files.path("p.rego")).unwrap();
        assert_eq!(files.next().await, None);
        assert!(files.refused().unwrap().1.contains("p.rego"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_does_not_wait_for_the_next_look() {
        let files = Files::new(ALLOW, "{}");
        assert_eq!(files.next().await, None);
        fs::write(files.path("p.rego"), DENY).unwrap();
        files.asked.notify_one();
        let began = tokio::time::Instant::now();
        assert!(files.next().await.is_some());
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_hears_again_why_a_policy_is_refused() {
        let files = Files::new(ALLOW, "{}");
        assert!(matches!(files.reload.look(true).await, Ok(Found::Same)));
        fs::write(files.path("p.rego"), "package other\nallow := true\n").unwrap();
        assert_eq!(files.next().await, None);
        let (_, told) = files.refused().unwrap();
        match files.reload.look(true).await {
            Ok(Found::StillRefused(why)) => assert_eq!(why, told),
            _ => panic!("the policy that lies there is not loaded"),
        }
        fs::write(files.path("p.rego"), ALLOW).unwrap();
        assert!(files.next().await.is_some());
        assert!(matches!(files.reload.look(true).await, Ok(Found::Same)));
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_go_on_changing_are_not_said_to_be_loaded() {
        let files = Files::new(ALLOW, "{}");
        let path = files.path("p.rego");
        let writing = async {
            for lines in 1.. {
                fs::write(&path, format!("{DENY}{}", "# more\n".repeat(lines))).unwrap();
                tokio::time::sleep(SETTLE / 2).await;
            }
        };
        tokio::select! {
            () = writing => {}
            found = files.reload.look(true) => assert!(matches!(found, Ok(Found::Changing))),
        }
    }

    /// A file that is being written is not read before it has been left alone for a moment.
    #[tokio::test(start_paused = true)]
    async fn a_file_in_the_making_is_not_read() {
        let files = Files::new(ALLOW, "{}");
        let path = files.path("p.rego");
        let writing = async {
            // Each piece is a policy of its own, and allows more than the whole.
            for lines in 1..=30 {
                let text = format!("{ALLOW}{}", "# more\n".repeat(lines));
                fs::write(&path, text).unwrap();
                tokio::time::sleep(SETTLE / 2).await;
            }
            fs::write(&path, DENY).unwrap();
            std::future::pending::<()>().await;
        };
        let found = tokio::select! {
            () = writing => None,
            found = files.next() => found,
        };
        let whole = Sources::read(&files.reload.config).unwrap();
        let whole = whole.load(&files.reload.config.authorization).unwrap();
        assert_eq!(found.as_deref(), Some(&*whole.revision().0));
        assert_eq!(fs::read_to_string(&path).unwrap(), DENY);
    }
}
