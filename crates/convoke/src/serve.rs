//! Hosting an agent: configuration in, a process that serves until it is asked to end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub use convoke_agent::{Agent, Host, HostError};
pub use convoke_node::config;
pub use convoke_node::config::{Config, ConfigError, Environment};
use convoke_node::observe::logging::{FILTER_VARIABLE, LogError, LogExporter, subscriber};
pub use convoke_node::observe::logging::{Format, LogGuard, LogOptions};
use convoke_node::observe::otlp::OtlpError;
pub use convoke_node::{Node, NodeOptions, StartError, Summary, load_policy};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use crate::check::{Checked, CheckedCapability, DecidedBy, check};
use crate::command_line::{self, Help, Wish};
pub use crate::ending::{EndSignal, Ending};

/// How long the end of a process waits for threads that are blocked. What has to be on a disk is
/// there before the end begins.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// How [`run`] serves, beside what the configuration says.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// Also answer plaintext HTTP on this loopback address. Callers there are anonymous.
    pub dev: Option<SocketAddr>,
    /// Cancelled when the agent is to drain and end.
    pub shutdown: CancellationToken,
    /// Cancelled when the drain is to end at once, whatever still runs.
    pub cut: CancellationToken,
    /// Notified when the files of the policy are to be looked at now, as on SIGHUP.
    pub reload: Arc<Notify>,
    /// Makes every panic of the process a line of the log, as [`LogGuard::log_panics`] does. It
    /// takes the place of the panic hook, so it is for programs that do nothing but serve.
    pub log_panics: bool,
}

/// Serves an agent with the configuration that the command line names, until SIGINT or SIGTERM:
/// the whole `main` of an agent's program. Another of these signals cuts the drain short.
///
/// The program takes the configuration's path, by default `config.yaml`, and the options `--check`,
/// `--json`, `--dev ADDR:PORT` and `--help` of `convoke serve`; its exit codes are the same too.
pub fn main<A: Agent>(agent: A) -> ExitCode {
    let wish = match command_line::read(std::env::args_os().skip(1)) {
        Ok(wish) => wish,
        Err(wrong) => {
            say(format_args!("error: {wrong}\n\nFor more information, try '--help'."));
            return ExitCode::from(2);
        }
    };
    let mut as_json = false;
    let ran = match wish {
        Wish::Help => {
            print(&Help(&program()));
            return ExitCode::SUCCESS;
        }
        Wish::Check { config, json } => {
            as_json = json;
            Host::new(agent).map_err(ServeError::Agent).and_then(|host| {
                let checked = check(&config, &host)?;
                report(&checked, json);
                Ok(())
            })
        }
        Wish::Serve { config, dev } => serve(agent, &config, dev),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (message, code) = (convoke_model::chain(&error), error.exit_code());
            if as_json {
                let error = serde_json::json!({ "message": message, "exit_code": code });
                say(format_args!("{}", serde_json::json!({ "error": error })));
            } else {
                say(format_args!("error: {message}"));
            }
            ExitCode::from(code)
        }
    }
}

/// Prints what a check found: for programs on standard output, for people on standard error.
fn report(checked: &Checked, as_json: bool) {
    if as_json {
        print(&checked.to_json());
        return;
    }
    for warning in &checked.warnings {
        say(format_args!("warning: {}: {warning}", checked.config.display()));
    }
    say(format_args!("valid: {checked}"));
}

fn print(text: &dyn std::fmt::Display) {
    use std::io::Write;
    // A reader of standard output who has gone away wants nothing more.
    let _gone = writeln!(std::io::stdout(), "{text}");
}

fn serve<A: Agent>(agent: A, config: &Path, dev: Option<SocketAddr>) -> Result<(), ServeError> {
    let host = Host::new(agent).map_err(ServeError::Agent)?;
    let ending = Ending::on_signals().map_err(ServeError::Runtime)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(ServeError::Runtime)?;
    let served = runtime.block_on(async {
        let (shutdown, cut) = (ending.drain().clone(), ending.cut().clone());
        let reload = on_hangup(&shutdown).map_err(ServeError::Runtime)?;
        run(config, host, ServeOptions { dev, shutdown, cut, reload, log_panics: true }).await
    });
    end_runtime(runtime, matches!(served, Err(ServeError::Cut { .. })));
    served.map_err(|error| error.ended_by(ending.cut_by()))
}

/// Ends the runtime of a process that has nothing to say any more. Threads that are blocked in it,
/// such as by a disk that does not answer, have a second to come back and are then left
/// behind; what was `cut` off is not waited for at all.
pub fn end_runtime(runtime: tokio::runtime::Runtime, cut: bool) {
    runtime.shutdown_timeout(if cut { Duration::ZERO } else { BLOCKED_MAX });
}

/// Serves the agent in `host` with the configuration at `config` until `options.shutdown`.
///
/// Logs go to standard error, in the configured format.
///
/// # Errors
///
/// [`ServeError`] says what kept the agent from starting; nothing is bound before the
/// configuration, the policy and the identity are good, and the agent's `on_start` has run.
pub async fn run(config: &Path, host: Host, options: ServeOptions) -> Result<(), ServeError> {
    let (config, warnings) = load(config)?;
    config.check_identity()?;
    let (guard, exporter) = log(&config)?;
    if options.log_panics {
        guard.log_panics();
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let ServeOptions { dev, shutdown, cut, reload, .. } = options;
    let node_options = NodeOptions { dev, reload, cut: cut.clone(), ..NodeOptions::default() };
    // What the agent does before it serves may take long, and may be given up.
    let started = tokio::select! {
        started = Node::start(config, host, node_options) => Some(started?),
        () = shutdown.cancelled() => None,
    };
    let summary = match started {
        Some(node) => Some(node.run(shutdown).await),
        None => None,
    };
    if let Some(exporter) = exporter {
        tokio::select! {
            () = exporter.close() => {}
            () = cut.cancelled() => {}
        }
    }
    match summary {
        Some(Summary { cut: requests, lost_tasks, left_tasks, .. }) if cut.is_cancelled() => {
            Err(ServeError::Cut { by: None, cut: requests, lost_tasks, left_tasks })
        }
        _ => Ok(()),
    }
}

/// Sends this process's log to standard error, coloured where that is a terminal.
///
/// The environment variable `CONVOKE_LOG` overrides `level` for the targets that it names. The
/// guard keeps the log open and writes its last lines when it is dropped.
///
/// # Errors
///
/// [`ServeError::Log`] if the filter cannot be read, [`ServeError::LogTaken`] if there is a log
/// already.
pub fn log_to_stderr(format: Format, level: tracing::Level) -> Result<LogGuard, ServeError> {
    install(LogOptions { format, level, ..LogOptions::default() })
}

/// Sends this process's log where the configuration says.
fn log(config: &Config) -> Result<(LogGuard, Option<LogExporter>), ServeError> {
    let logging = &config.observability.logging;
    let agent = config.agent_config().metadata;
    let exporter = match &config.observability.tracing {
        Some(tracing) if tracing.logs => {
            Some(LogExporter::start(tracing, &agent.name, &agent.version)?)
        }
        _ => None,
    };
    let guard = install(LogOptions {
        format: logging.format,
        level: logging.level,
        sampling_rate: logging.sampling_rate,
        redact: logging.redact.clone(),
        export: exporter.as_ref().map(LogExporter::lines),
        ..LogOptions::default()
    })?;
    Ok((guard, exporter))
}

fn install(options: LogOptions) -> Result<LogGuard, ServeError> {
    let options = LogOptions {
        filter: std::env::var(FILTER_VARIABLE).ok(),
        colour: std::io::stderr().is_terminal(),
        ..options
    };
    let (subscriber, guard) = subscriber(&options, std::io::stderr())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| ServeError::LogTaken)?;
    Ok(guard)
}

pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>), ServeError> {
    let config = Config::load(path)?;
    let warnings = config.warnings().iter().map(ToString::to_string).collect();
    Ok((config, warnings))
}

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent's capabilities contradict each other.
    #[error(transparent)]
    Agent(HostError),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Log lines cannot be sent to the collector that the configuration names.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The log cannot be written as it should.
    #[error("logging: {0}")]
    Log(#[from] LogError),
    /// The program has set up logging of its own before.
    #[error("logging: something else in this program has taken the log already")]
    LogTaken,
    /// The system gives no threads or signals.
    #[error("runtime: {0}")]
    Runtime(std::io::Error),
    /// The agent served, and was not given the time to drain.
    #[error(
        "ended{} before it had drained; requests cut off: {cut}, tasks lost: {lost_tasks}, tasks \
         left for the next start: {left_tasks}",
        .by.map(|by| format!(" by {}", by.name())).unwrap_or_default()
    )]
    Cut {
        /// The signal that asked for it, if one did.
        by: Option<EndSignal>,
        /// Requests that were cut off.
        cut: u64,
        /// Tasks that were at work, and are lost with a journal in memory.
        lost_tasks: usize,
        /// Tasks that were at work, and are found at the next start.
        left_tasks: usize,
    },
}

impl ServeError {
    /// The same, with the signal that cut the drain, if that is what it is about.
    #[must_use]
    pub fn ended_by(self, signal: Option<EndSignal>) -> Self {
        match self {
            Self::Cut { by: _, cut, lost_tasks, left_tasks } => {
                Self::Cut { by: signal, cut, lost_tasks, left_tasks }
            }
            other => other,
        }
    }

    /// The exit status that says the same: 2 for what is cured in the configuration, 10 for want
    /// of an identity, that of the signal where one ended it, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start(StartError::Identity(_)) => 10,
            Self::Cut { by: Some(by), .. } => by.exit_code(),
            other if other.is_configuration() => 2,
            _ => 1,
        }
    }

    /// Whether the cure is in the configuration or the files that it names.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Config(_) | Self::Otlp(_) => true,
            Self::Start(error) => error.is_configuration(),
            Self::Agent(_)
            | Self::Log(_)
            | Self::LogTaken
            | Self::Runtime(_)
            | Self::Cut { .. } => false,
        }
    }
}

/// What is notified at each SIGHUP, by which an operator says that the policy has changed.
///
/// The kernel sends the same signal when the terminal that a process belongs to goes away, and then
/// the process is to end: if it had a terminal and has none any more, `shutdown` is cancelled.
///
/// # Errors
///
/// If the system has no room for another handler of signals.
pub fn on_hangup(shutdown: &CancellationToken) -> std::io::Result<Arc<Notify>> {
    use tokio::signal::unix::{SignalKind, signal};
    let has_terminal = || std::fs::File::open("/dev/tty").is_ok();
    let had_terminal = has_terminal();
    let mut hangup = signal(SignalKind::hangup())?;
    let reload = Arc::new(Notify::new());
    let (notify, cancel) = (Arc::clone(&reload), shutdown.clone());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if had_terminal && !has_terminal() {
                cancel.cancel();
                return;
            }
            notify.notify_one();
        }
    });
    Ok(reload)
}

fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // A reader of standard error who has gone away is no reason to fail.
    let _gone = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_end_leaves_a_blocked_thread_behind() {
        let check = |cut: bool| {
            let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
            let (_end, until) = std::sync::mpsc::channel::<()>();
            let (begun, has_begun) = std::sync::mpsc::channel();
            runtime.spawn_blocking(move || {
                begun.send(()).unwrap();
                until.recv()
            });
            has_begun.recv().unwrap();
            // Its thread waits for `_end`, which outlives the runtime; to wait for it is to hang.
            super::end_runtime(runtime, cut);
        };
        check(false);
        check(true);
    }
}
