//! `convoke doctor`: what is wrong with an agent, in the order in which one thing depends on
//! another, each with its cure.
//!
//! It looks and changes nothing: ports and locks are read from the kernel's tables instead of being
//! tried, and no file is made.

mod agent;
mod cross;
mod identity;
mod local;
mod report;
mod running;
mod system;

use std::path::{Path, PathBuf};

use convoke::Client;
use convoke::serve::Config;
use convoke_policy::Policy;

use crate::args;
use crate::exit::{Code, Failure};
use crate::paint::Paint;
use crate::progress;
use report::Report;
use running::Running;

/// One agent under examination, as far as it could be read.
struct Patient {
    /// The configuration's file, as it was named.
    name: String,
    config: Config,
    /// The policy, if the embedded engine decides and it loads.
    policy: Option<Policy>,
    /// Calls as the agent, if its identity could be had.
    client: Option<Client>,
    /// Where it is reached.
    address: String,
    /// What it can do, if it runs.
    capabilities: Vec<String>,
    /// What it says of itself, if it runs here and has a metrics listener.
    running: Option<Running>,
    /// Whether the agent is known to decide by another policy than the file's.
    decides_otherwise: bool,
}

pub(crate) async fn run(options: args::Doctor, paint: Paint) -> Result<(), Failure> {
    if let Some(address) = &options.address {
        crate::call::check_address(address)?;
    }
    let mut report = Report::new(options.json, options.configs.len() > 1, paint);
    let mut patients = Vec::new();
    for (index, path) in options.configs.iter().enumerate() {
        let address = options.address.clone().filter(|_| index == 0);
        patients.extend(examine(path, address, &mut report).await);
    }
    progress::label("the agents that are called");
    for caller in &patients {
        cross::registry(caller, &patients, &mut report).await;
    }
    // With one of several configurations unread, the first patient may not be the first file's.
    let first = patients.first().filter(|first| Some(first.path()) == options.configs.first());
    if let (Some(first), Some(who)) = (first, options.caller.clone()) {
        cross::authorization(first, who, &options.method, &mut report);
    }
    cross::callers(&patients, &options.method, &mut report);
    let wrong = report.finish()?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::new(Code::Failure, "one thing is wrong")),
        many => Err(Failure::new(Code::Failure, format_args!("{many} things are wrong"))),
    }
}

/// Looks at one agent by itself. `None` if its configuration cannot be read.
async fn examine(path: &Path, address: Option<String>, report: &mut Report) -> Option<Patient> {
    progress::label(format!("what {} names", path.display()));
    report.begin(&path.display().to_string());
    let config = local::configuration(path, report)?;
    let policy = local::policy(&config, report);
    local::data_dir(&config, report);
    let running = running::ask(&config).await;
    local::audit_file(&config, running.is_some(), report);
    progress::label("the identity");
    let client = identity::examine(&config, report).await;
    let address =
        address.unwrap_or_else(|| format!("https://{}:{}", host(&config), config.server.port));
    let mut patient = Patient {
        name: path.display().to_string(),
        config,
        policy,
        client,
        address,
        capabilities: Vec::new(),
        running,
        decides_otherwise: false,
    };
    progress::label(format!("the agent at {}", patient.address));
    agent::examine(&mut patient, report).await;
    local::metrics_port(&patient.config, patient.running.is_some(), report);
    progress::label("the collector and the policy server");
    agent::outside(&patient.config, report).await;
    Some(patient)
}

/// The host at which a listener of this machine is reached.
fn host(config: &Config) -> String {
    let host = config.server.host;
    if host.is_unspecified() || host.is_loopback() {
        return "localhost".to_owned();
    }
    match host {
        std::net::IpAddr::V4(host) => host.to_string(),
        std::net::IpAddr::V6(host) => format!("[{host}]"),
    }
}

impl Patient {
    fn path(&self) -> &PathBuf {
        &self.config.file
    }
}
