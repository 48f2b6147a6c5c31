//! The identity of the agent: whether it can be had, and whether it is good for a while.

use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use convoke::identity::{FilesConfig, IdentityError, IdentitySource, Material, WorkloadApiConfig};
use convoke::serve::Config;
use convoke::serve::config::IdentityFiles;
use convoke::{Client, UnixMillis, chain};

use super::report::Report;
use crate::question::now;

/// Takes the identity as the agent would, and gives a client that calls with it.
pub(super) async fn examine(config: &Config, report: &mut Report) -> Option<Client> {
    let source = match open(config).await {
        Ok(source) => source,
        Err((message, cure)) => {
            report.wrong("identity", message, cure);
            report.skip("certificate", "there is no identity");
            return None;
        }
    };
    let id = source.spiffe_id();
    report.good(
        "identity",
        match &config.identity.socket {
            Some(socket) if config.identity.files.is_none() => {
                format!("the Workload API at {} issues {id}", socket.display())
            }
            _ => format!("the files are those of {id}"),
        },
    );
    certificate(&source.current(), report);
    Some(Client::with_source(Arc::new(source)))
}

async fn open(config: &Config) -> Result<IdentitySource, (String, Option<String>)> {
    let identity = &config.identity;
    let spiffe_id = identity.spiffe_id.clone();
    if let Some(files) = identity.files.clone() {
        let IdentityFiles { certificate, private_key, bundle, federated } = files;
        let files = FilesConfig { spiffe_id, certificate, private_key, bundle, federated };
        return IdentitySource::from_files(files).map_err(|error| (chain(&error), None));
    }
    let socket = config.workload_socket().map_err(|error| (error.to_string(), None))?;
    // What is not there, or is not ours to look at, is told by connecting.
    let found = socket.metadata().ok().map(|found| found.file_type());
    if let Some(found) = found.filter(|found| !found.is_socket()) {
        let what = if found.is_file() { "a regular file" } else { "something else" };
        let text = format!("{} is no socket but {what}", socket.display());
        return Err((text, Some("name the socket of the Workload API".to_owned())));
    }
    let mut api = WorkloadApiConfig::new(socket.to_owned(), spiffe_id);
    api.issuer_uid = identity.issuer_uid;
    IdentitySource::connect(api).await.map_err(|error| {
        // Most of these say their cure themselves.
        let cure = match &error {
            IdentityError::NothingIssued { .. }
            | IdentityError::EnrollingEnded { .. }
            | IdentityError::NotAmongIssued { .. } => Some(
                "`convoke identity entry list` shows what is registered; an entry with a \
                 `unix:path` or another user is for the agent alone, and then run the doctor as it \
                 runs",
            ),
            IdentityError::Socket { .. } => {
                Some("check that this user may use the socket, and that it is one")
            }
            IdentityError::Timeout { .. } => Some("see the log of the Workload API's server"),
            _ => None,
        };
        (chain(&error), cure.map(str::to_owned))
    })
}

fn certificate(material: &Material, report: &mut Report) {
    let check = "certificate";
    let (from, until) = (material.not_before(), material.not_after());
    match judge(now(), from, until) {
        Age::NotYet(ahead) => report.wrong(
            check,
            format!("not valid before {from}, which is in {}", words(ahead)),
            "this clock or the issuer's is wrong: set it, for example with NTP".to_owned(),
        ),
        Age::Expired(ago) => report.wrong(
            check,
            format!("expired at {until}, {} ago", words(ago)),
            "see whether the Workload API still renews, and compare the clocks".to_owned(),
        ),
        Age::Late(left) => report.warn(
            check,
            format!("ends at {until}, in {}, and has not been renewed", words(left)),
            "it should have been replaced at half of its life: see the issuer's log".to_owned(),
        ),
        Age::Good(left) => {
            report.good(check, format!("good until {until}, for another {}", words(left)));
        }
    }
}

/// Where in the life of a certificate an instant is.
#[derive(Debug, PartialEq, Eq)]
enum Age {
    NotYet(Duration),
    Good(Duration),
    /// In its last quarter, when a renewed one should have been there for long.
    Late(Duration),
    Expired(Duration),
}

fn judge(now: UnixMillis, from: UnixMillis, until: UnixMillis) -> Age {
    let between = |a: UnixMillis, b: UnixMillis| Duration::from_millis(b.0.saturating_sub(a.0));
    let (life, left) = (between(from, until), between(now, until));
    if now < from {
        Age::NotYet(between(now, from))
    } else if now > until {
        Age::Expired(between(until, now))
    } else if left < life / 4 {
        Age::Late(left)
    } else {
        Age::Good(left)
    }
}

/// A span of time for people, in its largest unit.
pub(super) fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_ages() {
        let check = |now: u64, expected: Age| {
            let age = judge(UnixMillis(now), UnixMillis(1000), UnixMillis(5000));
            assert_eq!(age, expected);
        };
        check(0, Age::NotYet(Duration::from_secs(1)));
        check(1000, Age::Good(Duration::from_secs(4)));
        check(4000, Age::Good(Duration::from_secs(1)));
        check(4500, Age::Late(Duration::from_millis(500)));
        check(5000, Age::Late(Duration::ZERO));
        check(6000, Age::Expired(Duration::from_secs(1)));
        assert_eq!(words(Duration::from_secs(7300)), "2 h");
    }
}
