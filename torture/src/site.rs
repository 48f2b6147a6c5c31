//! Where a victim lives: a directory, an issuer, a place on the network, one process after the other.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use convoke::task::Tasks;
use convoke::{BreakerSettings, CallSettings, Client, ClientOptions, RetrySettings, SpiffeId};
use convoke_identity::issuer::{Issuer, IssuerConfig};
use convoke_model::TrustDomain;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proxy::Proxy;
use crate::random::Random;

/// How long a process may take to start or to end. It takes a hundredth of it on an idle machine.
const PROCESS_MAX: Duration = Duration::from_secs(60);

/// How many lines of a victim are shown when it does not start.
const LINES_SHOWN: usize = 5;

/// A directory with an issuer, and the place where victims answer.
pub struct Site {
    directory: TempDir,
    victim: PathBuf,
    agent: SpiffeId,
    plain: Proxy,
    mesh: Proxy,
    /// Where the development listener is itself.
    direct: Mutex<Option<SocketAddr>>,
    clients: Mutex<Vec<(String, Client)>>,
    _issuer: DropGuard,
}

/// A victim that runs. It is killed when this is dropped.
pub struct Victim {
    child: Child,
    /// It ends when this does.
    _stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    told: watch::Receiver<Told>,
}

/// What a victim has said of itself.
#[derive(Debug, Clone, Default)]
struct Told {
    plain: Option<SocketAddr>,
    mesh: Option<u16>,
    ended: bool,
}

impl Site {
    /// A site in a new directory; `victim` is the program that is tortured there.
    ///
    /// # Errors
    ///
    /// If the machine has no room for it.
    pub async fn new(victim: &Path, random: &mut Random) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("convoke-torture-").tempdir();
        let directory = directory.context("cannot make a directory")?;
        let domain = TrustDomain::parse("torture.example.org").context("the trust domain")?;
        let agent = domain.member("/victim").context("the agent's name")?;
        let socket = directory.path().join("api.sock");
        let config = IssuerConfig::new(domain, directory.path().join("issuer"), socket);
        let issuer = Issuer::open(config).context("the issuer does not open")?;
        let issuer = issuer.bind().await.context("the issuer does not start")?;
        let ending = CancellationToken::new();
        tokio::spawn(issuer.serve(ending.clone()));
        Ok(Self {
            directory,
            victim: victim.to_owned(),
            agent,
            plain: Proxy::open(random.fork()).await?,
            mesh: Proxy::open(random.fork()).await?,
            direct: Mutex::default(),
            clients: Mutex::default(),
            _issuer: ending.drop_guard(),
        })
    }

    /// A file or directory of the site.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the victim keeps its tasks.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("data/journal")
    }

    /// The victim's name.
    #[must_use]
    pub fn agent(&self) -> &SpiffeId {
        &self.agent
    }

    /// The way to the development listener.
    #[must_use]
    pub fn plain(&self) -> &Proxy {
        &self.plain
    }

    /// Keeps the directory, for somebody to look at.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }

    /// Starts a victim on the site's data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it does not, with its last lines.
    pub async fn start(&self) -> Result<Victim> {
        self.start_with(&[], json!({})).await
    }

    /// The same behind another program that starts it, with other keys in its configuration.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(&self, before: &[String], more: Value) -> Result<Victim> {
        let mut config = json!({
            "identity": {"spiffe_id": self.agent, "spire_socket": self.path("api.sock")},
            "authorization": {"default_policy": "allow_all"},
            "server": {"port": 0, "drain_timeout": "2s", "limits": {"queue_time_max": "10s"}},
            "data_dir": self.path("data"),
            "metadata": {"name": "Victim", "marks": self.path("marks")},
        });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        let file = self.path("victim.yaml");
        std::fs::write(&file, config.to_string()).context("cannot write a configuration")?;
        let mut words = before.iter().map(String::as_str);
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.victim);
                command
            }
            None => Command::new(&self.victim),
        };
        for name in ["SPIFFE_ENDPOINT_SOCKET", "CONVOKE_LOG", "CONVOKE_DATA_DIR"] {
            command.env_remove(name);
        }
        let child = command
            .arg(&file)
            .args(["--dev", "127.0.0.1:0"])
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.victim.display()))?;
        let mut victim = Victim::new(child, self.path("victim.log"))?;
        let (plain, mesh) = victim.started().await?;
        *self.direct.lock().unwrap_or_else(PoisonError::into_inner) = Some(plain);
        self.plain.lead_to(Some(plain));
        self.mesh.lead_to(Some((Ipv4Addr::LOCALHOST, mesh).into()));
        Ok(victim)
    }

    /// The tasks of callers without a name.
    ///
    /// # Errors
    ///
    /// If there is no way.
    pub fn anonymous(&self) -> Result<Tasks> {
        let address = format!("http://{}", self.plain.address());
        Tasks::open(&address).map_err(|error| anyhow::anyhow!("{address}: {error:?}"))
    }

    /// The same, around the proxy, for as long as this victim lives.
    ///
    /// # Errors
    ///
    /// If there has been no victim.
    pub fn anonymous_direct(&self) -> Result<Tasks> {
        let direct = *self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        let address = format!("http://{}", direct.context("no victim was started")?);
        Tasks::open(&address).map_err(|error| anyhow::anyhow!("{address}: {error:?}"))
    }

    /// The tasks of the caller of this name, over mTLS.
    ///
    /// # Errors
    ///
    /// If it gets no identity.
    pub async fn of(&self, name: &str) -> Result<Tasks> {
        let known = {
            let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients.iter().find(|(known, _)| known == name).map(|(_, client)| client.clone())
        };
        let client = match known {
            Some(client) => client,
            None => {
                let id = SpiffeId::parse(&format!("spiffe://torture.example.org/user/{name}"))?;
                let mut options = ClientOptions::new(id, self.path("api.sock"));
                options.calls = settings();
                let client = Client::connect(options).await.context("no identity")?;
                let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
                clients.push((name.to_owned(), client.clone()));
                client
            }
        };
        let address = format!("https://localhost:{}", self.mesh.address().port());
        client.task(&self.agent, &address).context("no way to the agent")
    }
}

/// How a client calls whom nothing may keep from asking: each question goes out once, so that it can
/// write down each.
fn settings() -> CallSettings {
    let mut settings = CallSettings::default();
    settings.breaker = BreakerSettings { failures_max: 0, ..settings.breaker };
    settings.retry = RetrySettings { attempts_max: 1, ..settings.retry };
    settings.concurrency_max = 1_000;
    settings
}

impl Victim {
    fn new(mut child: Child, log: PathBuf) -> Result<Self> {
        let stderr = child.stderr.take().context("a victim has no standard error")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = watch::channel(Told::default());
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut file = tokio::fs::OpenOptions::new().append(true).create(true).open(log).await;
            let mut reader = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                if let Ok(file) = &mut file {
                    // The log is for people; what is checked does not depend on it.
                    let _unwritten = file.write_all(format!("{line}\n").as_bytes()).await;
                }
                hear(&line, &tell);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() >= LINES_SHOWN {
                    kept.remove(0);
                }
                kept.push(line);
            }
            tell.send_modify(|told| told.ended = true);
        });
        Ok(Self { _stdin: child.stdin.take(), child, lines, told })
    }

    /// Waits until it has said where it is.
    async fn started(&mut self) -> Result<(SocketAddr, u16)> {
        let told = {
            let found = self.told.wait_for(|told| told.ended || told.mesh.is_some());
            match timeout(PROCESS_MAX, found).await {
                Ok(Ok(told)) => told.clone(),
                _ => Told::default(),
            }
        };
        if let Told { plain: Some(plain), mesh: Some(mesh), .. } = told {
            return Ok((plain, mesh));
        }
        bail!("the victim does not start; its last lines:{}", self.last_lines())
    }

    fn last_lines(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a string does not fail.
            let _written = write!(text, "\n  {line}");
            text
        })
    }

    /// Its number, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
    }

    /// Holds it still while `work` looks at what it has written, which is then as after a kill.
    ///
    /// # Errors
    ///
    /// If it cannot be stopped, or as `work` says.
    pub async fn held_still<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let pid = self.pid().context("the victim ended by itself")?;
        kill_process(pid, Signal::STOP).context("cannot stop the victim")?;
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        // The state stands behind the program's name, which may have any character but this.
        let is_still = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with('T'));
            std::future::ready(state == Some(true))
        };
        let worked = match comes_true(PROCESS_MAX, is_still).await {
            true => work(),
            false => Err(anyhow::anyhow!("the victim does not stop")),
        };
        kill_process(pid, Signal::CONT).context("cannot let the victim go on")?;
        worked
    }

    /// Kills it as the kernel does, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If it had ended by itself, which it should not have.
    pub async fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("cannot look at the victim")? {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("the victim ended by itself ({status}); its last line: {:?}", lines.last());
        }
        self.child.kill().await.context("cannot kill the victim")
    }

    /// Has it end in good order.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.pid().context("the victim ended by itself")?;
        kill_process(pid, Signal::TERM).context("cannot signal the victim")?;
        let status = timeout(PROCESS_MAX, self.child.wait()).await;
        let status = status.context("the victim does not end")?.context("cannot wait for it")?;
        if !status.success() {
            bail!("the victim ended badly ({status}); its last lines:{}", self.last_lines());
        }
        Ok(())
    }
}

/// Takes from a line of the log what it says of where the victim listens.
fn hear(line: &str, tell: &watch::Sender<Told>) {
    if !line.contains(" started") {
        return;
    }
    let Ok(line) = serde_json::from_str::<Value>(line) else { return };
    match line["message"].as_str().unwrap_or_default() {
        "Agent server started" => {
            let port = line["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            tell.send_modify(|told| told.mesh = port);
        }
        message if message.starts_with("Development listener started") => {
            let address = line["address"].as_str().and_then(|address| address.parse().ok());
            tell.send_modify(|told| told.plain = address);
        }
        _ => {}
    }
}

/// Waits until `done` says so, looking again and again; `false` if it did not in time.
pub async fn comes_true<F>(patience: Duration, mut done: impl FnMut() -> F) -> bool
where
    F: Future<Output = bool>,
{
    let until = Instant::now() + patience;
    while !done().await {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
