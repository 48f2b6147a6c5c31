//! Whether the node lives and whether it can take requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use convoke_model::{Revision, SpiffeId, UnixMillis};
use serde_json::json;

/// What the health endpoints answer from. Parts of the node keep it current; reading it waits for
/// nobody.
#[derive(Debug, Default)]
pub struct Health {
    /// In milliseconds since 1970; zero while there is no certificate.
    svid_valid_until: AtomicU64,
    policy: AtomicU8,
    /// In milliseconds since 1970; zero while the policy's files are the policy that decides.
    reload_failing_since: AtomicU64,
    policy_news: Mutex<PolicyNews>,
    audit_healthy: AtomicBool,
    journal_troubled: AtomicBool,
    server: AtomicU8,
    /// Where the mesh listener is.
    listens_at: OnceLock<SocketAddr>,
}

/// Which policy decides, and what became of the last attempt to replace it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyNews {
    /// The revision that decides; empty before the first.
    pub revision: String,
    /// Since when.
    pub loaded_at: UnixMillis,
    /// Since when the policy's files hold what cannot be loaded, and the last reason.
    pub refused: Option<(UnixMillis, String)>,
}

/// Whether there is a policy that can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum PolicyPhase {
    NotLoaded = 0,
    Loaded = 1,
    Unreachable = 2,
}

/// What the server does with new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerPhase {
    /// Not listening yet.
    Starting = 0,
    /// Taking requests.
    Accepting = 1,
    /// Finishing what it has, taking nothing new.
    Draining = 2,
}

/// The state of the node at one instant: `ok`, or one word for what is wrong.
///
/// It holds no identity, since whoever has no certificate may ask too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthReport {
    /// The agent's certificate: `ok`, `missing` or `expired`.
    pub identity: &'static str,
    /// The policy: `ok`, `not loaded`, or `unreachable` while the server that decides is away.
    pub policy: &'static str,
    /// Since when the policy's files hold what cannot be loaded, while the last good one decides.
    /// Such a node is degraded and still ready.
    pub reload_failing_since: Option<UnixMillis>,
    /// The audit trail: `ok` or `not writable`.
    pub audit: &'static str,
    /// The journal: `ok` or `not writable`.
    pub journal: &'static str,
    /// The server: `ok`, `starting` or `draining`.
    pub server: &'static str,
}

/// What the operator is told beside the checks, on the listener that is for operators alone.
#[derive(Debug, Clone, Copy)]
pub struct Particulars<'a> {
    /// The agent's name.
    pub agent: &'a str,
    /// Who the agent is.
    pub spiffe_id: &'a SpiffeId,
    /// Which policy decides.
    pub policy: &'a PolicyNews,
    /// Until when the agent's certificate is valid, if it has one.
    pub svid_valid_until: Option<UnixMillis>,
    /// Where the mesh listener is, once it is open.
    pub listens_at: Option<SocketAddr>,
}

/// The body of `/health/live`. A node that can answer is alive; nothing else is looked at, since
/// a restart would not cure it.
pub const LIVE_BODY: &str = r#"{"status":"alive"}"#;

/// The media type of all health bodies.
pub const CONTENT_TYPE: &str = "application/json";

impl Health {
    /// A node that has nothing yet, and so is not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The current certificate is valid until `until`; a node that needs none says the end of time.
    /// Gives until when the one before was, if there was one.
    pub fn set_svid_valid_until(&self, until: UnixMillis) -> Option<UnixMillis> {
        let before = self.svid_valid_until.swap(until.0, Ordering::Relaxed);
        (before != 0).then_some(UnixMillis(before))
    }

    /// Until when the current certificate is valid, if there is one.
    #[must_use]
    pub fn svid_valid_until(&self) -> Option<UnixMillis> {
        let until = UnixMillis(self.svid_valid_until.load(Ordering::Relaxed));
        (until.0 != 0).then_some(until)
    }

    /// The mesh listener is open at `address`. Only the first is kept, as there is one.
    pub fn set_listens_at(&self, address: SocketAddr) {
        self.listens_at.get_or_init(|| address);
    }

    /// Where the mesh listener is, once it is open.
    #[must_use]
    pub fn listens_at(&self) -> Option<SocketAddr> {
        self.listens_at.get().copied()
    }

    /// Whether decisions can be made: a policy is loaded, or the default decides by configuration.
    pub fn set_policy_loaded(&self, loaded: bool) {
        let phase = if loaded { PolicyPhase::Loaded } else { PolicyPhase::NotLoaded };
        self.policy.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether the server that decides can be asked.
    pub fn set_policy_reachable(&self, reachable: bool) {
        let phase = if reachable { PolicyPhase::Loaded } else { PolicyPhase::Unreachable };
        self.policy.store(phase as u8, Ordering::Relaxed);
    }

    /// The policy of `revision` decides from `now` on.
    pub fn policy_changed(&self, revision: &Revision, now: UnixMillis) {
        let mut news = self.news();
        *news =
            PolicyNews { revision: revision.0.as_ref().to_owned(), loaded_at: now, refused: None };
        self.reload_failing_since.store(0, Ordering::Relaxed);
    }

    /// A changed policy could not be loaded for the reason `why`, and the one before goes on
    /// deciding. Gives its revision.
    pub fn policy_refused(&self, why: &str, now: UnixMillis) -> String {
        let mut news = self.news();
        let since = news.refused.as_ref().map_or(now, |(since, _)| *since);
        news.refused = Some((since, why.to_owned()));
        self.reload_failing_since.store(since.0, Ordering::Relaxed);
        news.revision.clone()
    }

    /// Which policy decides. For the operator alone: a reason quotes the policy.
    #[must_use]
    pub fn policy_news(&self) -> PolicyNews {
        self.news().clone()
    }

    fn news(&self) -> MutexGuard<'_, PolicyNews> {
        // Nothing panics while it is held.
        self.policy_news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether audit records can be written.
    pub fn set_audit_healthy(&self, healthy: bool) {
        self.audit_healthy.store(healthy, Ordering::Relaxed);
    }

    /// Whether the journal takes tasks.
    pub fn set_journal_healthy(&self, healthy: bool) {
        self.journal_troubled.store(!healthy, Ordering::Relaxed);
    }

    /// What the server does now.
    pub fn set_server(&self, phase: ServerPhase) {
        self.server.store(phase as u8, Ordering::Relaxed);
    }

    /// All checks at `now`.
    #[must_use]
    pub fn report(&self, now: UnixMillis) -> HealthReport {
        let identity = match self.svid_valid_until.load(Ordering::Relaxed) {
            0 => "missing",
            until if until <= now.0 => "expired",
            _ => OK,
        };
        let policy = match self.policy.load(Ordering::Relaxed) {
            phase if phase == PolicyPhase::Loaded as u8 => OK,
            phase if phase == PolicyPhase::Unreachable as u8 => "unreachable",
            _ => "not loaded",
        };
        let audit = if self.audit_healthy.load(Ordering::Relaxed) { OK } else { "not writable" };
        let journal =
            if self.journal_troubled.load(Ordering::Relaxed) { "not writable" } else { OK };
        let server = match self.server.load(Ordering::Relaxed) {
            phase if phase == ServerPhase::Accepting as u8 => OK,
            phase if phase == ServerPhase::Draining as u8 => "draining",
            _ => "starting",
        };
        let since = UnixMillis(self.reload_failing_since.load(Ordering::Relaxed));
        let reload_failing_since = (since.0 != 0).then_some(since);
        HealthReport { identity, policy, reload_failing_since, audit, journal, server }
    }
}

const OK: &str = "ok";

impl HealthReport {
    /// Whether requests can be taken. A policy that was not reloaded is no obstacle: the last good
    /// one decides.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Self { identity, policy, audit, journal, server, reload_failing_since: _ } = self;
        [identity, policy, audit, journal, server].iter().all(|check| **check == OK)
    }

    /// The HTTP status that says the same: 200 or 503.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.is_ready() { 200 } else { 503 }
    }

    /// The body of `/health/ready`.
    #[must_use]
    pub fn ready_body(&self) -> String {
        let status = if self.is_ready() { "ready" } else { "not ready" };
        json!({ "status": status, "checks": self.checks() }).to_string()
    }

    /// The word for it in `/health`.
    fn status(&self) -> &'static str {
        if self.is_ready() && self.reload_failing_since.is_none() { "healthy" } else { "degraded" }
    }

    /// The body of `/health`: the same, with the agent's name. It answers 200 while the node lives.
    #[must_use]
    pub fn health_body(&self, agent: &str) -> String {
        json!({ "status": self.status(), "agent": agent, "checks": self.checks() }).to_string()
    }

    /// As [`Self::health_body`], with what the operator alone is told.
    #[must_use]
    pub fn health_body_for_operator(&self, told: &Particulars<'_>) -> String {
        let mut policy = json!({
            "revision": told.policy.revision,
            "loaded_at": told.policy.loaded_at.to_string(),
        });
        if let (Some((since, why)), Some(policy)) = (&told.policy.refused, policy.as_object_mut()) {
            policy.insert("failing_since".to_owned(), json!(since.to_string()));
            policy.insert("error".to_owned(), json!(why));
        }
        json!({
            "status": self.status(),
            "agent": told.agent,
            "spiffe_id": told.spiffe_id.as_str(),
            "listens_at": told.listens_at.map(|at| at.to_string()),
            "svid_valid_until": told.svid_valid_until.map(|until| until.to_string()),
            "checks": self.checks(),
            "policy": policy,
        })
        .to_string()
    }

    fn checks(&self) -> serde_json::Value {
        let policy = match self.reload_failing_since {
            Some(since) if self.policy == OK => format!("reload failing since {since}"),
            _ => self.policy.to_owned(),
        };
        json!({
            "identity": self.identity,
            "policy": policy,
            "audit": self.audit,
            "journal": self.journal,
            "server": self.server,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_only_when_every_check_passes() {
        let health = Health::new();
        let now = UnixMillis(1000);
        let check = |expected: [&str; 4], status: u16| {
            let report = health.report(now);
            let found = [report.identity, report.policy, report.audit, report.server];
            assert_eq!((found, report.http_status()), (expected, status));
        };
        check(["missing", "not loaded", "not writable", "starting"], 503);
        health.set_svid_valid_until(UnixMillis(1001));
        check(["ok", "not loaded", "not writable", "starting"], 503);
        health.set_policy_loaded(true);
        check(["ok", "ok", "not writable", "starting"], 503);
        health.set_audit_healthy(true);
        check(["ok", "ok", "ok", "starting"], 503);
        health.set_server(ServerPhase::Accepting);
        check(["ok", "ok", "ok", "ok"], 200);
        health.set_server(ServerPhase::Draining);
        check(["ok", "ok", "ok", "draining"], 503);
        health.set_server(ServerPhase::Accepting);
        health.set_svid_valid_until(UnixMillis(1000));
        check(["expired", "ok", "ok", "ok"], 503);
        health.set_svid_valid_until(UnixMillis(u64::MAX));
        health.set_audit_healthy(false);
        check(["ok", "ok", "not writable", "ok"], 503);
        health.set_audit_healthy(true);
        health.set_journal_healthy(false);
        assert_eq!(health.report(now).journal, "not writable");
        check(["ok", "ok", "ok", "ok"], 503);
        health.set_journal_healthy(true);
        check(["ok", "ok", "ok", "ok"], 200);
    }

    #[test]
    fn a_reload_that_fails_is_told_and_keeps_nobody_out() {
        let health = Health::new();
        health.set_svid_valid_until(UnixMillis(u64::MAX));
        health.set_policy_loaded(true);
        health.set_audit_healthy(true);
        health.set_server(ServerPhase::Accepting);
        let check = |policy: &str, status: &str| {
            let report = health.report(UnixMillis(9000));
            let read = |body: String| serde_json::from_str::<serde_json::Value>(&body).unwrap();
            let (ready, body) = (read(report.ready_body()), read(report.health_body("a")));
            assert_eq!((&ready["status"], report.http_status()), (&json!("ready"), 200));
            assert_eq!(ready["checks"]["policy"], policy);
            assert_eq!((&body["status"], &body["checks"]), (&json!(status), &ready["checks"]));
        };
        check("ok", "healthy");
        health.policy_refused("a rule", UnixMillis(1000));
        check("reload failing since 1970-01-01T00:00:01.000Z", "degraded");
        health.policy_refused("another", UnixMillis(5000));
        check("reload failing since 1970-01-01T00:00:01.000Z", "degraded");
        health.policy_changed(&Revision("2".into()), UnixMillis(6000));
        check("ok", "healthy");
    }

    #[test]
    fn bodies_are_json() {
        let report = HealthReport {
            identity: OK,
            policy: OK,
            reload_failing_since: None,
            audit: OK,
            journal: OK,
            server: "draining",
        };
        let checks = concat!(
            r#""checks":{"audit":"ok","identity":"ok","journal":"ok","#,
            r#""policy":"ok","server":"draining"}"#
        );
        assert_eq!(report.ready_body(), format!(r#"{{{checks},"status":"not ready"}}"#));
        let body: serde_json::Value = serde_json::from_str(&report.health_body("a\"\n")).unwrap();
        assert_eq!((&body["agent"], &body["status"]), (&json!("a\"\n"), &json!("degraded")));
        let live: serde_json::Value = serde_json::from_str(LIVE_BODY).unwrap();
        assert_eq!(live, json!({"status": "alive"}));
    }
}
