//! Replacing a policy while requests run: a changed one is loaded beside the path of requests and
//! put in place as a whole; a wrong one is refused and the last good one goes on deciding.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convoke_model::chain;
use convoke_policy::Policy;
use tokio::sync::Notify;
use tokio::task::JoinError;

use super::sources::{Places, Sources, Stamp};
use crate::clock::Clock;
use crate::config::Config;
use crate::observe::health::Health;
use crate::path_metrics::PathMetrics;
use crate::start_error::StartError;

/// How long a file must not change before it is read. Editors and copies write in pieces, and a
/// piece of a policy may be a policy, with other rules.
const SETTLE: Duration = Duration::from_millis(100);

/// How often a file that goes on changing is waited for before the next regular look.
const SETTLE_TRIES: usize = 20;

/// How long the files may take to be looked at or read. Those of a network whose server is gone take
/// for ever, and who waits for them should know.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Watches the files of one policy.
pub(super) struct Reload {
    config: Config,
    /// Where the files were found at the start, and are read for as long as this process runs.
    places: Places,
    clock: Clock,
    health: Arc<Health>,
    metrics: PathMetrics,
    seen: Mutex<Seen>,
    /// Held while a thread is at the files: a look that does not end must not take one more thread
    /// with each look that follows.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What was last looked at.
struct Seen {
    /// `None` before the first look, and where the files could not be read: a cure for that need not
    /// show in what they look like.
    stamps: Option<Vec<Option<Stamp>>>,
    /// Of the texts that were last read, loaded or not; or why they could not be.
    digest: String,
}

/// The files as they were read.
struct Read {
    /// As that of [`Seen`].
    digest: String,
    are_readable: bool,
    /// What they make; `None` if they are what was last read.
    made: Option<Result<Policy, StartError>>,
}

/// Why there was no look.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(
        "the policy `{path}` and its data could not be looked at within {} seconds; check the file \
         system that they are on",
        LOOK_MAX.as_secs()
    )]
    OverTime { path: PathBuf },
    #[error("the policy could not be loaded")]
    Panic(#[from] JoinError),
}

/// What a look found.
enum Found {
    /// As before.
    Same,
    /// As before, and what could not be loaded for this reason.
    StillRefused(String),
    /// The files were not left alone for long enough to be read.
    Changing,
    /// Other files, with the policy that they make.
    Other(Policy),
    /// Other files that make none, or files that cannot be read, for this reason.
    Refused(String),
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
        let seen = Seen { stamps: None, digest: sources.digest() };
        let reload = Self {
            config: config.clone(),
            places: sources.places().clone(),
            clock,
            health: Arc::clone(health),
            metrics: metrics.clone(),
            seen: Mutex::new(seen),
            turn: Arc::default(),
        };
        Ok((Arc::new(reload), policy))
    }

    /// Waits for another policy, as long as that takes. What cannot be loaded is said and not given.
    pub(super) async fn changed(self: &Arc<Self>, asked: &Notify) -> Policy {
        loop {
            let by_hand = self.until_the_next_look(asked).await;
            match self.look(by_hand).await {
                Found::Same if by_hand => tracing::info!("Policy is the one that is loaded"),
                Found::StillRefused(why) if by_hand => {
                    say_refused(&why, &self.health.policy_news().revision);
                }
                Found::Same | Found::StillRefused(_) => {}
                Found::Changing => {
                    tracing::warn!(
                        "Policy goes on changing and was not read; the last good one decides"
                    );
                }
                Found::Other(policy) => {
                    let (revision, path) = (policy.revision(), self.places.policy());
                    self.metrics.reloaded(true);
                    self.health.policy_changed(revision, self.clock.now());
                    tracing::info!(
                        revision = &*revision.0, path = %path.display(), "Policy reloaded"
                    );
                    return policy;
                }
                Found::Refused(why) => {
                    self.metrics.reloaded(false);
                    let revision = self.health.policy_refused(&why, self.clock.now());
                    say_refused(&why, &revision);
                }
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

    async fn look(self: &Arc<Self>, by_hand: bool) -> Found {
        let why = match self.try_look(by_hand).await {
            Ok(found) => return found,
            Err(error) => chain(&error),
        };
        let mut seen = self.seen();
        seen.stamps = None;
        if seen.digest == why {
            return Found::StillRefused(why);
        }
        seen.digest.clone_from(&why);
        Found::Refused(why)
    }

    async fn try_look(self: &Arc<Self>, by_hand: bool) -> Result<Found, LookError> {
        for _ in 0..SETTLE_TRIES {
            let before = self.aside(|this| this.places.stamps()).await?;
            let known = {
                let seen = self.seen();
                if !by_hand && seen.stamps.as_ref() == Some(&before) {
                    return Ok(Found::Same);
                }
                seen.digest.clone()
            };
            tokio::time::sleep(SETTLE).await;
            let stamps = before.clone();
            if let Some(read) = self.aside(move |this| this.read(&stamps, &known)).await? {
                return Ok(self.found(before, read));
            }
        }
        Ok(Found::Changing)
    }

    /// Does `work`, which may wait for a disk, on a thread of its own.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        let working = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let this = Arc::clone(self);
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work(&this)
            });
            Ok(work.await?)
        };
        let over = || LookError::OverTime { path: self.places.policy().to_owned() };
        tokio::time::timeout(LOOK_MAX, working).await.map_err(|_| over())?
    }

    /// Reads the files, unless they change meanwhile or have since `before`; makes a policy of them
    /// if their digest is not `known`.
    fn read(&self, before: &[Option<Stamp>], known: &str) -> Option<Read> {
        let read = Sources::read_again(&self.config, &self.places);
        if self.places.stamps() != before {
            return None;
        }
        let digest = match &read {
            Ok(sources) => sources.digest(),
            Err(error) => chain(error),
        };
        let are_readable = read.is_ok();
        let make = || read.and_then(|sources| Ok(sources.load(&self.config.authorization)?));
        let made = (digest != known).then(make);
        Some(Read { digest, are_readable, made })
    }

    /// Remembers what was `read` of files that looked like `stamps`. Only what is waited for is: a
    /// look that ends after its time is as if it had not been.
    fn found(&self, stamps: Vec<Option<Stamp>>, read: Read) -> Found {
        *self.seen() = Seen { stamps: read.are_readable.then_some(stamps), digest: read.digest };
        match read.made {
            Some(Ok(policy)) => Found::Other(policy),
            Some(Err(error)) => Found::Refused(chain(&error)),
            None => {
                let refused = self.health.policy_news().refused;
                refused.map_or(Found::Same, |(_, why)| Found::StillRefused(why))
            }
        }
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
            let path = directory.path().to_owned();
            Self::below(directory, &path, "test.yaml", policy, data)
        }

        /// With `policy_path` and the configuration's own name as given.
        fn below(
            directory: tempfile::TempDir,
            policy_path: &Path,
            name: &str,
            policy: &str,
            data: &str,
        ) -> Self {
            fs::write(directory.path().join("p.rego"), policy).unwrap();
            fs::write(directory.path().join("d.json"), data).unwrap();
            let yaml = serde_json::json!({
                "identity": {"spiffe_id": "spiffe://example.org/worker"},
                "data_dir": directory.path(),
                "authorization": {
                    "policy_path": policy_path,
                    "policy_file": "p.rego",
                    "data_files": ["d.json"],
                    "reload_interval": "1s",
                },
            });
            let config = Config::parse(&yaml.to_string(), name).unwrap();
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

    /// The policy is looked for in two places at the start, and kept to the one from then on.
    #[tokio::test(start_paused = true)]
    async fn a_policy_that_goes_away_lets_no_other_file_decide() {
        // Relative to the working directory, as `policy_path` has to be to have a second place.
        let here = tempfile::tempdir_in(".").unwrap();
        let name = Path::new(here.path().file_name().unwrap());
        let conf = tempfile::tempdir().unwrap();
        let other = conf.path().join(name);
        fs::create_dir(&other).unwrap();
        fs::write(other.join("p.rego"), ALLOW).unwrap();
        fs::write(other.join("d.json"), "{\"other\": 1}").unwrap();
        let own = conf.path().join("worker.yaml");
        let own = own.to_str().unwrap();
        let name = name.to_owned();
        let files = Files::below(here, &name, own, DENY, "{}");
        for gone in ["p.rego", "d.json"] {
            let text = fs::read_to_string(files.path(gone)).unwrap();
            fs::remove_file(files.path(gone)).unwrap();
            assert_eq!(files.next().await, None, "{gone}");
            let (_, why) = files.refused().unwrap();
            let path = name.join(gone).display().to_string();
            let elsewhere = other.display().to_string();
            assert!(why.contains(&path) && !why.contains(&elsewhere), "{why}");
            assert_eq!(files.health.policy_news().revision, files.first);
            fs::write(files.path(gone), text).unwrap();
            assert_eq!(files.next().await.as_ref(), Some(&files.first), "{gone}");
            assert_eq!(files.refused(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_in_place_of_a_file_is_refused_and_a_file_is_read_again() {
        let files = Files::new(DENY, "{}");
        for name in ["p.rego", "d.json"] {
            let text = fs::read_to_string(files.path(name)).unwrap();
            fs::remove_file(files.path(name)).unwrap();
            // It would wait for a writer that never comes.
            let made = std::process::Command::new("mkfifo").arg(files.path(name)).status();
            assert!(made.unwrap().success());
            assert_eq!(files.next().await, None, "{name}");
            let (_, why) = files.refused().unwrap();
            assert!(why.contains(name) && why.contains("it is a pipe"), "{why}");
            replace(&files.path(name), &text);
            assert_eq!(files.next().await.as_ref(), Some(&files.first), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_does_not_end_is_said_once_and_takes_one_thread() {
        let files = Files::new(ALLOW, "{}");
        let (end, until) = std::sync::mpsc::channel::<()>();
        let hanging = files.reload.aside(move |_| until.recv());
        let hanging = tokio::time::timeout(Duration::ZERO, hanging);
        // The thread has the turn, and is not waited for any more.
        tokio::join!(hanging, tokio::time::advance(Duration::from_millis(1))).0.unwrap_err();
        let mut looks = [None, None];
        for found in &mut looks {
            let (look, ()) = tokio::join!(files.reload.look(false), async {
                tokio::task::yield_now().await;
                // A clock that stands still goes on by itself only where no thread is at work.
                tokio::time::advance(LOOK_MAX).await;
            });
            *found = Some(look);
        }
        let expected = "p.rego` and its data could not be looked at within 10 seconds";
        let [Some(Found::Refused(first)), Some(Found::StillRefused(second))] = looks else {
            panic!("it is said when it begins, and not again");
        };
        assert!(first.contains(expected) && first == second, "{first}");
        drop(end);
        // It has ended, and what lies there is what was loaded.
        assert!(matches!(files.reload.look(false).await, Found::Other(_)));
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
        assert!(matches!(files.reload.look(true).await, Found::Same));
        fs::write(files.path("p.rego"), "package other\nallow := true\n").unwrap();
        assert_eq!(files.next().await, None);
        let (_, told) = files.refused().unwrap();
        match files.reload.look(true).await {
            Found::StillRefused(why) => assert_eq!(why, told),
            _ => panic!("the policy that lies there is not loaded"),
        }
        fs::write(files.path("p.rego"), ALLOW).unwrap();
        assert!(files.next().await.is_some());
        assert!(matches!(files.reload.look(true).await, Found::Same));
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
            found = files.reload.look(true) => assert!(matches!(found, Found::Changing)),
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
