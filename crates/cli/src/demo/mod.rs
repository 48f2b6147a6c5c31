//! The tutorial in one command: an issuer, a worker, a summarizer and an orchestrator as processes of
//! their own, calls between them, one refusal, and one stranger at the door.

mod process;
mod trail;

use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use convoke::identity::IdentitySource;
use convoke::{CallError, Client, ClientOptions, Json, SpiffeId, TrustDomain, chain};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::args::{Demo, Output};
use crate::exit::{Code, Failure};
use crate::paint::{self, Paint, say};
use crate::signals::Signals;
use crate::{input, login};
use process::Process;
use trail::Trail;

const TRUST_DOMAIN: &str = "example.org";
const STRANGER_DOMAIN: &str = "stranger.example";

/// The seed's sentence, whose numbers the tutorial gives.
const SENTENCE: &str =
    "This is a wonderful document. It contains great information and amazing insights.";

/// A text that can be said in fewer sentences.
const LONG_TEXT: &str = "Agents call each other all day long. Most of them never ask who is calling. \
    Here every call comes with a certificate, and the certificate says who is calling. The policy \
    of whoever is called decides, and the decision is on record.";

/// How long the demo waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the demo. Whatever happens, nothing is left running.
pub(crate) async fn run(options: Demo, paint: Paint) -> Result<(), Failure> {
    let text = options.text.as_deref().map(input::text).transpose()?;
    let dir = directory()?;
    say(format!(
        "{} three agents that prove who they are, over mutual TLS, each under its own policy\n",
        paint.bold("convoke demo:")
    ));
    let mut stage = Stage { processes: Vec::new() };
    let kept = AtomicBool::new(false);
    let mut signals = Signals::new()?;
    let mut outcome = tokio::select! {
        outcome = stage.play(&dir, text, options.keep.then_some(&kept), paint) => outcome,
        // Agents that were kept up end by a signal; it is what was promised.
        (name, code) = signals.next() => match kept.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Failure::new(code, format_args!("ended by {name}"))),
        },
    };
    let cleared = tokio::select! {
        cleared = stage.clear() => cleared,
        (name, code) = signals.next() => {
            // Whatever else there was to say, this is how it ended.
            outcome = Ok(());
            let text = format!("ended by {name} before its agents had ended, which were killed");
            Err(Failure::new(code, text))
        }
    };
    if outcome.is_ok() || dir.join("worker.log").exists() {
        say(format!("\nLogs, audit and configurations are in {}", dir.display()));
    }
    outcome.and(cleared)
}

/// The processes of the demo, in the order in which they were started.
struct Stage {
    processes: Vec<Process>,
}

/// An agent that runs.
struct Running {
    spiffe_id: SpiffeId,
    port: u16,
}

impl Stage {
    async fn play(
        &mut self,
        dir: &Path,
        text: Option<String>,
        keep: Option<&AtomicBool>,
        paint: Paint,
    ) -> Result<(), Failure> {
        let socket = self.issuer(dir, TRUST_DOMAIN, paint).await?;
        let worker = self.agent(dir, "worker", &socket, &[], paint).await?;
        let summarizer = self.agent(dir, "summarizer", &socket, &[], paint).await?;
        let callees = [("document_worker", worker.port), ("summarizer", summarizer.port)];
        let orchestrator = self.agent(dir, "orchestrator", &socket, &callees, paint).await?;

        let domain = trust_domain(TRUST_DOMAIN)?;
        let own = login::default_identity(&domain)?;
        let client = Arc::new(connect(&socket, own.clone()).await?);
        say(format!("  {:<13} {}\n", "you", paint.name(own.as_str())));
        say(format!(
            "Each line below is a record of an audit log: the caller as its certificate proves it,\n\
             the callee (both within {}), what was asked, and which rule decided.\n",
            domain.uri()
        ));

        let trail = ["orchestrator", "worker", "summarizer"];
        let trail = trail.map(|name| dir.join(format!("{name}.audit.jsonl"))).to_vec();
        let mut scene =
            Scene { number: 0, trail: Trail::new(trail, domain.uri(), paint), client, paint };

        scene
            .call(
                "process_document: analyze, count and sentiment, one call to the worker each",
                &orchestrator,
                "process_document",
                json!({"text": SENTENCE, "operations": ["analyze", "count", "sentiment"]}),
            )
            .await?;
        scene
            .call(
                "batch_process: three documents at once",
                &orchestrator,
                "batch_process",
                json!({"documents": [
                    {"id": "doc1", "text": "This is excellent!"},
                    {"id": "doc2", "text": "This is terrible."},
                    {"id": "doc3", "text": "This is okay."},
                ]}),
            )
            .await?;
        scene
            .call(
                "process_document: a summary, which the orchestrator has from a third agent",
                &orchestrator,
                "process_document",
                json!({"text": LONG_TEXT, "operations": ["summarize"]}),
            )
            .await?;
        if let Some(text) = text {
            let params = json!({"text": text, "operations": ["analyze", "count", "sentiment"]});
            scene.call("your own text", &orchestrator, "process_document", params).await?;
        }
        scene
            .refusal(
                "you ask the worker directly: its policy lets nobody but the orchestrator in",
                &worker,
                json!({"text": SENTENCE}),
            )
            .await?;
        self.stranger(dir, &worker, &mut scene).await?;

        if let Some(kept) = keep {
            kept.store(true, Ordering::Relaxed);
            keep_up(&socket, &orchestrator, paint).await;
        }
        Ok(())
    }

    async fn issuer(&mut self, dir: &Path, domain: &str, paint: Paint) -> Result<PathBuf, Failure> {
        let socket = dir.join(format!("{domain}.sock"));
        let data = dir.join(format!("{domain}.issuer"));
        let args = [
            "identity",
            "serve",
            "--trust-domain",
            domain,
            "--socket",
            path(&socket)?,
            "--data-dir",
            path(&data)?,
        ];
        let log = dir.join(format!("{domain}.issuer.log"));
        let mut process = Process::start("issuer", &args, log)?;
        let ready = process.ready("Issuer started").await;
        let pid = process.pid();
        self.processes.push(process);
        ready?;
        let name = format!("{domain}.sock");
        say(row(paint, "issuer", &format!("spiffe://{domain}"), &name, pid));
        Ok(socket)
    }

    async fn agent(
        &mut self,
        dir: &Path,
        name: &'static str,
        socket: &Path,
        callees: &[(&str, u16)],
        paint: Paint,
    ) -> Result<Running, Failure> {
        let config = dir.join(format!("{name}.yaml"));
        let (kind, yaml, policy) = match name {
            "worker" => (
                "document-worker",
                document_pipeline::WORKER_CONFIG,
                ("worker_policy_strict.rego", document_pipeline::WORKER_POLICY_STRICT),
            ),
            "summarizer" => (
                "summarizer",
                document_pipeline::SUMMARIZER_CONFIG,
                ("summarizer_policy.rego", document_pipeline::SUMMARIZER_POLICY),
            ),
            _ => (
                "document-orchestrator",
                document_pipeline::ORCHESTRATOR_WITH_SUMMARIZER_CONFIG,
                ("orchestrator_policy.rego", document_pipeline::ORCHESTRATOR_POLICY),
            ),
        };
        let audit = dir.join(format!("{name}.audit.jsonl"));
        let yaml = adapt(yaml, dir, socket, policy.0, &audit, callees)?;
        std::fs::write(dir.join(policy.0), policy.1)?;
        std::fs::write(&config, yaml)?;

        let args = ["serve", "--agent", kind, path(&config)?];
        let mut process = Process::start(name, &args, dir.join(format!("{name}.log")))?;
        let identity = process.ready("Loaded SPIFFE identity").await;
        let started = process.ready("Agent server started").await;
        let pid = process.pid();
        self.processes.push(process);
        let (identity, started) = (identity?, started?);
        let running = Running {
            spiffe_id: identity["spiffe_id"]
                .as_str()
                .and_then(|id| SpiffeId::parse(id).ok())
                .ok_or_else(|| odd(name, "SPIFFE ID"))?,
            port: started["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .ok_or_else(|| odd(name, "port"))?,
        };
        let address = format!("https://localhost:{}", running.port);
        say(row(paint, name, running.spiffe_id.as_str(), &address, pid));
        Ok(running)
    }

    /// Somebody with a flawless certificate of a trust domain that the worker does not know.
    async fn stranger(
        &mut self,
        dir: &Path,
        worker: &Running,
        scene: &mut Scene,
    ) -> Result<(), Failure> {
        scene.title("a stranger: a valid certificate, but of a trust domain nobody here knows");
        let socket = self.issuer(dir, STRANGER_DOMAIN, scene.paint).await?;
        let id = trust_domain(STRANGER_DOMAIN)?
            .member("/orchestrator")
            .map_err(|error| Failure::new(Code::Failure, error))?;
        // The stranger trusts the worker, as a thief trusts a bank: what keeps it out must be the
        // worker's own check.
        let given = connect(&socket, id.clone()).await?.material();
        let trusting = given.also_trusting(&scene.client.material());
        let stranger = Client::with_source(Arc::new(IdentitySource::from_material(trusting)));
        let begun = Instant::now();
        let answer = call(&stranger, worker, "analyze_document", json!({"text": SENTENCE})).await;
        match answer {
            Err(CallError::Refused(refusal)) => {
                say(format!(
                    "   {} → {}  {} {}",
                    scene.paint.name(id.as_str()),
                    scene.paint.name(worker.spiffe_id.path()),
                    scene.paint.bad("turned away"),
                    scene.paint.dim("before a byte of the request was read"),
                ));
                say(format!("   {}", paint::plain(&refusal.to_string())));
                say(scene.took(begun));
                Ok(())
            }
            Err(other) => Err(other.into()),
            Ok(_) => Err(Failure::new(
                Code::Failure,
                format_args!("{id} was let in, which must never happen"),
            )),
        }
    }

    async fn clear(self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        // The agents first, so that they drain while their identity is still there.
        for process in self.processes.into_iter().rev() {
            outcome = outcome.and(process.stop().await);
        }
        outcome
    }
}

/// What is shown of each call.
struct Scene {
    number: usize,
    trail: Trail,
    client: Arc<Client>,
    paint: Paint,
}

impl Scene {
    fn title(&mut self, title: &str) {
        self.number += 1;
        say(format!(
            "{} {}",
            self.paint.bold(&format!("{}.", self.number)),
            self.paint.bold(title)
        ));
    }

    async fn call(
        &mut self,
        title: &str,
        agent: &Running,
        capability: &str,
        params: Value,
    ) -> Result<(), Failure> {
        self.title(title);
        let begun = Instant::now();
        let client = Arc::clone(&self.client);
        let (answer, took) = self
            .watched(async {
                let answer = Box::pin(call(&client, agent, capability, params)).await;
                (answer, begun.elapsed())
            })
            .await?;
        say(format!("   {}", self.paint.dim(&format!("answered in {}", millis(took)))));
        paint::result(&answer?, Output { json: false, pretty: true })?;
        say("");
        Ok(())
    }

    async fn refusal(
        &mut self,
        title: &str,
        agent: &Running,
        params: Value,
    ) -> Result<(), Failure> {
        self.title(title);
        let begun = Instant::now();
        let client = Arc::clone(&self.client);
        let (answer, took) = self
            .watched(async {
                let answer = Box::pin(call(&client, agent, "analyze_document", params)).await;
                (answer, begun.elapsed())
            })
            .await?;
        match answer {
            Err(CallError::Refused(refusal)) => {
                say(format!("   {}", paint::plain(&refusal.to_string())));
                say(format!("   {}", self.paint.dim(&format!("refused in {}", millis(took)))));
                say("");
                Ok(())
            }
            Err(other) => Err(other.into()),
            Ok(_) => Err(Failure::new(
                Code::Failure,
                "the worker answered a caller that its policy does not name",
            )),
        }
    }

    /// Runs `work` and says the decisions that are made meanwhile.
    async fn watched<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let done = CancellationToken::new();
        let work = async {
            let value = work.await;
            done.cancel();
            value
        };
        let (value, followed) = tokio::join!(work, self.trail.follow(&done));
        followed?;
        Ok(value)
    }

    fn took(&self, begun: Instant) -> String {
        format!("   {}", self.paint.dim(&format!("in {}", millis(begun.elapsed()))))
    }
}

async fn call(
    client: &Client,
    agent: &Running,
    capability: &str,
    params: Value,
) -> Result<Json, CallError> {
    client
        .call(&agent.spiffe_id, capability, params)
        .address(format!("https://localhost:{}", agent.port))
        .timeout(TIMEOUT)
        .json()
        .await
}

async fn connect(socket: &Path, identity: SpiffeId) -> Result<Client, Failure> {
    Client::connect(ClientOptions::new(identity, socket))
        .await
        .map_err(|error| Failure::new(Code::NoIdentity, chain(&error)))
}

async fn keep_up(socket: &Path, orchestrator: &Running, paint: Paint) {
    say(format!(
        "\n{} Try, in another terminal:\n\n  {} call \\\n    --socket {} \\\n    --agent {} \\\n    \
         --address https://localhost:{} \\\n    --capability process_document \\\n    --params \
         '{{\"text\": \"I love it.\", \"operations\": [\"sentiment\"]}}'\n\nCtrl-C ends the agents.",
        paint.bold("The agents are up."),
        std::env::args().next().unwrap_or_else(|| "convoke".to_owned()),
        socket.display(),
        orchestrator.spiffe_id,
        orchestrator.port,
    ));
    // The demo ends by a signal, which `run` waits for beside this.
    std::future::pending::<()>().await;
}

/// Puts the demo's ports and paths where the tutorial's are; `callees` are the entries of
/// `agent_registry` with their ports. Each has to be there: a tutorial that changed must not be half
/// adapted.
fn adapt(
    yaml: &str,
    dir: &Path,
    socket: &Path,
    policy_file: &str,
    audit: &Path,
    callees: &[(&str, u16)],
) -> Result<String, Failure> {
    let mut out = String::with_capacity(yaml.len() + 256);
    let (mut sockets, mut ports, mut policies, mut named) = (0, 0, 0, 0);
    // The entry that a line belongs to: the last one above it that has nothing behind its colon.
    let mut entry = "";
    for line in yaml.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let key = line.trim_start().split(':').next().unwrap_or_default();
        let value = match key {
            "spire_socket" => {
                sockets += 1;
                Some(path(socket)?.to_owned())
            }
            "policy_path" => Some(path(dir)?.to_owned()),
            "policy_file" => {
                policies += 1;
                Some(policy_file.to_owned())
            }
            "host" => Some("127.0.0.1".to_owned()),
            "address" => {
                let port = callees.iter().find(|(name, _)| *name == entry).map(|(_, port)| port);
                named += 1;
                port.map(|port| format!("https://localhost:{port}"))
            }
            _ => None,
        };
        if line.trim_end().ends_with(':') {
            entry = key;
        }
        match value {
            Some(value) => out.push_str(&format!("{indent}{key}: {}", Value::from(value))),
            None if key == "address" => return Err(reshaped()),
            None if key == "port" => {
                ports += 1;
                out.push_str(&format!("{indent}port: 0"));
            }
            None => out.push_str(line),
        }
        out.push('\n');
        if line == "observability:" {
            out.push_str(&format!("  audit:\n    path: {}\n", Value::from(path(audit)?)));
        }
    }
    match (sockets, ports, policies, named) == (1, 2, 1, callees.len()) {
        true => Ok(out),
        false => Err(reshaped()),
    }
}

fn reshaped() -> Failure {
    Failure::new(Code::Failure, "the tutorial's configuration has changed its shape")
}

fn directory() -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("convoke-demo-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
        Failure::of_file(Code::Failure, dir.display(), &error)
            .hint("remove it, or set TMPDIR to a directory you can write to")
    })?;
    Ok(dir)
}

fn trust_domain(name: &str) -> Result<TrustDomain, Failure> {
    TrustDomain::parse(name).map_err(|error| Failure::new(Code::Failure, error))
}

fn path(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::new(Code::Failure, format_args!("{} is not UTF-8", path.display()))
            .hint("set TMPDIR to a directory whose path is")
    })
}

fn odd(name: &str, what: &str) -> Failure {
    Failure::new(Code::Failure, format_args!("the log of {name} does not give its {what}"))
}

fn row(paint: Paint, name: &str, id: &str, place: &str, pid: u32) -> String {
    format!("  {name:<13} {:<45} {}", paint.name(id), paint.dim(&format!("{place}  pid {pid}")))
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorials_configurations_can_be_adapted() {
        let (dir, socket, audit) = (Path::new("/d"), Path::new("/d/s"), Path::new("/d/a"));
        let callees = [("document_worker", 4711), ("summarizer", 4712)];
        for (yaml, callees) in [
            (document_pipeline::WORKER_CONFIG, &[][..]),
            (document_pipeline::SUMMARIZER_CONFIG, &[]),
            (document_pipeline::ORCHESTRATOR_CONFIG, &callees[..1]),
            (document_pipeline::ORCHESTRATOR_WITH_SUMMARIZER_CONFIG, &callees),
        ] {
            let adapted = adapt(yaml, dir, socket, "p.rego", audit, callees).unwrap();
            let config = convoke::serve::Config::parse(&adapted, "adapted").unwrap();
            assert!(adapted.contains("\"/d/s\"") && adapted.contains("\"p.rego\""));
            assert_eq!(config.agent_registry.len(), callees.len());
            for (name, port) in callees {
                let address = format!("https://localhost:{port}");
                assert_eq!(config.agent_registry[*name].address, address);
            }
        }
    }

    #[test]
    fn a_configuration_of_another_shape_is_not_half_adapted() {
        let (dir, socket, audit) = (Path::new("/d"), Path::new("/d/s"), Path::new("/d/a"));
        let yaml = document_pipeline::WORKER_CONFIG.replace("spire_socket", "socket");
        assert!(adapt(&yaml, dir, socket, "p.rego", audit, &[]).is_err());
        // An agent that is not started must not be called where the tutorial has it.
        let yaml = document_pipeline::ORCHESTRATOR_WITH_SUMMARIZER_CONFIG;
        let callees = [("document_worker", 4711), ("document_worker", 4712)];
        assert!(adapt(yaml, dir, socket, "p.rego", audit, &callees).is_err());
    }
}
