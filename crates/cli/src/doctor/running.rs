//! What the running agent says of itself to its operator, on its metrics listener: files say what
//! it would be, this says what it is.

use std::net::SocketAddr;

use convoke::serve::Config;
use convoke::{SpiffeId, open};
use convoke_a2a::{ScanLimits, scan};
use convoke_policy::Policy;
use serde::Deserialize;

use super::report::Report;

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Running {
    spiffe_id: String,
    /// Where its mesh listener is.
    listens_at: Option<SocketAddr>,
    svid_valid_until: Option<String>,
    checks: Checks,
    policy: InUse,
}

/// `ok`, or what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Checks {
    identity: String,
    policy: String,
    audit: String,
    server: String,
}

/// The policy that decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct InUse {
    revision: String,
    failing_since: Option<String>,
    error: Option<String>,
}

/// Asks the agent of `config`. `None` if nobody answers where its metrics would be, or somebody
/// else does.
pub(super) async fn ask(config: &Config) -> Option<Running> {
    let address = metrics_address(config)?;
    let (status, body) = open::get(&address, "/health").await.ok()?;
    if status != 200 {
        return None;
    }
    read(&body, &config.identity.spiffe_id)
}

/// Where the metrics of the agent are asked for from this machine: plain HTTP is for the loopback
/// address alone.
pub(super) fn metrics_address(config: &Config) -> Option<String> {
    let metrics = config.observability.metrics.as_ref()?;
    let is_here = metrics.host.is_unspecified() || metrics.host.is_loopback();
    let host = match metrics.host {
        std::net::IpAddr::V6(host) if !host.is_unspecified() => format!("[{host}]"),
        host if host.is_unspecified() => "localhost".to_owned(),
        host => host.to_string(),
    };
    (is_here && metrics.port != 0).then(|| format!("http://{host}:{}", metrics.port))
}

fn read(body: &[u8], id: &SpiffeId) -> Option<Running> {
    let text = scan(body, &ScanLimits::CARD).ok()?;
    let running: Running = serde_json::from_str(text).ok()?;
    // An ID of another case is a mistake that is told elsewhere, and still the same agent's.
    running.spiffe_id.eq_ignore_ascii_case(id.as_str()).then_some(running)
}

impl Running {
    /// Where it listens, if that is another port than `port`.
    pub(super) fn other_port(&self, port: u16) -> Option<u16> {
        self.listens_at.map(|at| at.port()).filter(|at| *at != port && port != 0)
    }

    /// Tells what the agent cannot do for want of a certificate. `false` if it has a good one.
    pub(super) fn tell_certificate(&self, report: &mut Report) -> bool {
        let text = match (self.checks.identity.as_str(), &self.svid_valid_until) {
            ("ok", _) => return false,
            ("expired", Some(until)) => format!("its certificate ended at {until}"),
            (what, _) => format!("its certificate is {what}"),
        };
        let cure = "the agent takes a new one as soon as there is one: see whether the Workload \
                    API still renews, or put new files in place; the agent's log says why it has \
                    none";
        report.wrong("agent", text, cure.to_owned());
        true
    }

    /// Tells that the agent has the ID of the configuration but for its case. `false` if it is the
    /// same.
    pub(super) fn tell_case(&self, id: &SpiffeId, report: &mut Report) -> bool {
        let differs = self.spiffe_id != id.as_str();
        if differs {
            let text = format!(
                "the running agent is {}, but `identity.spiffe_id` is {id}: they differ in case \
                 alone",
                self.spiffe_id
            );
            let cure = "SPIFFE IDs are case-sensitive: correct `identity.spiffe_id`, or restart \
                        the agent if it was changed";
            report.wrong("agent", text, cure.to_owned());
        }
        differs
    }

    /// Tells which of its other checks fail.
    pub(super) fn tell_checks(&self, report: &mut Report) {
        for (what, state) in [("audit", &self.checks.audit), ("server", &self.checks.server)] {
            if state != "ok" {
                let cure = "the agent's log says why".to_owned();
                report.wrong("agent", format!("says that its {what} is {state}"), cure);
            }
        }
    }

    /// Compares the policy that decides with that of the file. `false` if they are not the same.
    pub(super) fn compare(&self, policy: Option<&Policy>, report: &mut Report) -> bool {
        let check = "policy in use";
        let decides = short(&self.policy.revision);
        if let Some(since) = &self.policy.failing_since {
            let why = self.policy.error.as_deref().unwrap_or("its log says why");
            let text = format!("the agent decides by {decides}; reload failing since {since}");
            report.wrong(check, format!("{text}: {why}"), "correct the policy there".to_owned());
            return false;
        }
        if self.checks.policy != "ok" {
            let text = format!("the agent says that its policy is {}", self.checks.policy);
            report.wrong(check, text, "the agent's log says why".to_owned());
            return false;
        }
        let Some(policy) = policy else { return true };
        let revision = &*policy.revision().0;
        if revision == self.policy.revision {
            report.good(check, format!("the agent decides by {decides}, which is this file's"));
            return true;
        }
        let text = format!("the agent decides by {decides}, this file is {}", short(revision));
        let cure = "reload the agent by SIGHUP if its policy file changed, or restart it if the \
                    configuration did";
        report.wrong(check, text, cure.to_owned());
        false
    }
}

/// The beginning of a revision, which is enough to tell two apart.
fn short(revision: &str) -> String {
    const SHOWN: usize = 12;
    match revision.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &revision[..end]),
        None => revision.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_agents_own_words_are_taken() {
        let id: SpiffeId = "spiffe://example.org/a".parse().unwrap();
        let body = r#"{"status":"healthy","agent":"A","spiffe_id":"spiffe://example.org/a",
            "listens_at":"127.0.0.1:8443","svid_valid_until":"2026-01-01T00:00:00.000Z",
            "checks":{"identity":"ok","policy":"ok","audit":"ok","server":"ok"},
            "policy":{"revision":"0123456789abcdef","loaded_at":"2026-01-01T00:00:00.000Z"}}"#;
        let running = read(body.as_bytes(), &id).unwrap();
        assert_eq!(running.other_port(8443), None);
        assert_eq!(running.other_port(8444), Some(8443));
        assert_eq!(running.other_port(0), None);
        assert_eq!(short(&running.policy.revision), "0123456789ab…");
        assert!(read(body.replace("/a\"", "/A\"").as_bytes(), &id).is_some());
        assert_eq!(read(body.replace("/a\"", "/b\"").as_bytes(), &id), None);
        let deep = "[".repeat(100_000);
        for other in ["", "{}", "null", deep.as_str()] {
            assert_eq!(read(other.as_bytes(), &id), None);
        }
    }
}
