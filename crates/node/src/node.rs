//! Start, run and drain: configuration becomes parts, parts become a node.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use convoke_agent::Host;
use convoke_client::Client;
use convoke_identity::{FilesConfig, IdentitySource, WorkloadApiConfig, tls};
use convoke_journal::{AuditSink, Durability, JsonLinesSink};
use convoke_model::AuditEventKind;
use convoke_model::limits::{LARGE_BODIES_BYTES_MAX, RESPONSE_BYTES_MAX};
use convoke_net::server::{Drained, Limits, Reviews, Server, TlsSource};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::calls::Calls;
use crate::card::CardReply;
use crate::clock::Clock;
use crate::config::{Config, IdentityFiles, Stage};
use crate::connection::Listener;
use crate::context;
use crate::http::Routes;
use crate::metrics_listener::MetricsRoutes;
use crate::observe;
use crate::observe::call_spans::CallSpans;
use crate::observe::health::{Health, ServerPhase};
use crate::observe::metrics::Metrics;
use crate::observe::otlp::Spans;
use crate::observe::trace::Tracer;
use crate::policy::Decider;
use crate::refusals::Refusals;
use crate::service::Service;
use crate::sparse::Sparse;
use crate::start_error::StartError;
use crate::store;
use crate::stream::Streams;
use crate::tasks::Tasks;

/// How often what only the node sees is written into metrics and health.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a node is told beside its configuration.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Also answer plaintext HTTP on this loopback address. Callers there are anonymous.
    pub dev: Option<SocketAddr>,
    /// Notified when the policy's files are to be looked at now, as on SIGHUP.
    pub reload: Arc<Notify>,
    /// The agent's identity, kept fresh by whoever starts the node; `None` gets it from where the
    /// configuration says. It has to be of the SPIFFE ID that the configuration names.
    pub identity: Option<Arc<IdentitySource>>,
    /// Cancelled when a drain is to end at once: what still runs is cut, and records are written.
    pub cut: CancellationToken,
}

/// A node whose listeners are open. It serves while [`Node::run`] does.
pub struct Node {
    service: Arc<Service>,
    identity: Arc<IdentitySource>,
    audit: Arc<JsonLinesSink>,
    mesh: Server<Routes>,
    dev: Option<Server<Routes>>,
    metrics: Option<Server<MetricsRoutes>>,
    spans: Option<Spans>,
    drain_timeout: Duration,
    reload: Arc<Notify>,
    cut: CancellationToken,
    /// Ends what the agent began for itself.
    lifetime: DropGuard,
}

/// What a node did with the requests that ran when it was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Requests that still ended by themselves.
    pub finished: u64,
    /// Requests that were cut off.
    pub cut: u64,
    /// Tasks that were at work and are lost, because the journal is in memory.
    pub lost_tasks: usize,
    /// Tasks that were at work, and that the node which comes next finds in the journal.
    pub left_tasks: usize,
}

impl Node {
    /// Builds a node and opens its listeners. Nothing is bound before the configuration, the
    /// policy, the audit log and the identity are good, and the agent's `on_start` has run. If it
    /// fails after that, the agent's `on_stop` runs too.
    ///
    /// # Errors
    ///
    /// [`StartError`] says which of them is not.
    pub async fn start(
        config: Config,
        host: Host,
        options: NodeOptions,
    ) -> Result<Self, StartError> {
        check_dev(&config, &options)?;
        let clock = Clock::new();
        let agent = Arc::new(config.agent_config());
        tracing::info!("{} initialized", agent.metadata.name);
        for capability in host.capabilities() {
            tracing::info!(name = capability.name.as_str(), "Registered capability");
        }
        let metrics = Arc::new(Metrics::new(
            &agent.spiffe_id,
            &agent.metadata.name,
            host.capabilities().iter().map(|capability| capability.name.as_str()),
            agent.agent_registry.values().map(|entry| &entry.spiffe_id),
            clock.now(),
        ));
        let spans = config.observability.tracing.as_ref();
        let spans = spans.map(|tracing| Spans::start(tracing, &agent)).transpose()?;
        let tracer = spans.as_ref().map_or_else(Tracer::default, Spans::tracer);
        if let Some(spans) = &spans {
            metrics.set_otlp_drops(spans.drops());
        }
        let health = Arc::new(Health::new());
        let policy = Decider::open(&config, clock, &health, &metrics.path)?;
        let audit = Arc::new(observe::audit::open(&config.observability.audit)?);
        tracing::info!(path = %config.observability.audit.path.display(), "Audit log opened");
        let journal = store::open(&config.journal, &audit).await?;

        let identity = match options.identity {
            Some(given) => own_identity(&config, given)?,
            None => Arc::new(open_identity(&config).await?),
        };
        tracing::info!(spiffe_id = identity.spiffe_id().as_str(), "Loaded SPIFFE identity");

        let observer = CallSpans::new(tracer.clone(), Arc::clone(&metrics.outward) as _);
        let observer = Some(Arc::new(observer) as _);
        let client = Client::new(Arc::clone(&identity), agent.calls.clone(), observer);
        metrics.follow_pool(client.clone());
        let outbound = Arc::new(Calls { client, metrics: Arc::clone(&metrics) });

        let service = Arc::new(Service {
            agent,
            host,
            policy,
            admission: Admission::new(
                config.server.limits.requests_max,
                config.server.limits.queue_time_max,
                metrics.path.clone(),
            ),
            journal,
            audit: Arc::clone(&audit) as _,
            refusals: Refusals::default(),
            identity: Arc::clone(&identity),
            outbound,
            tasks: Tasks::new(config.tasks, options.cut.child_token()),
            streams: Streams::new(metrics.streams.clone()),
            metrics,
            tracer,
            health,
            card: OnceLock::new(),
            clock,
            turned_away: Sparse::default(),
            rejected: Sparse::default(),
            troubled: Sparse::default(),
            bodies: Budget::new(LARGE_BODIES_BYTES_MAX, config.server.limits.body_bytes_max),
            answers: Budget::new(LARGE_BODIES_BYTES_MAX, RESPONSE_BYTES_MAX),
            body_bytes_max: config.server.limits.body_bytes_max,
            connection_age_max: config.server.limits.connection_age_max,
        });

        let lifetime = CancellationToken::new();
        let itself = context::of_agent(&service, lifetime.clone());
        // From here on the agent may have begun something, which must not outlast a failed start.
        let lifetime = lifetime.drop_guard();
        service.host.start(&itself).await.map_err(StartError::Agent)?;

        let drain_timeout = config.server.drain_timeout;
        let Listeners { mesh, dev, metrics } =
            match Listeners::open(&config, options.dev, &service, &identity) {
                Ok(listeners) => listeners,
                Err(error) => {
                    drop(lifetime);
                    stop(&service.host, Instant::now() + drain_timeout).await;
                    return Err(error);
                }
            };
        let node = Self {
            service,
            identity,
            audit,
            mesh,
            dev,
            metrics,
            spans,
            drain_timeout,
            reload: options.reload,
            cut: options.cut,
            lifetime,
        };
        node.look();
        Ok(node)
    }

    /// Where the mesh listener is.
    #[must_use]
    pub fn mesh_addr(&self) -> SocketAddr {
        self.mesh.local_addr()
    }

    /// Where the development listener is, if there is one.
    #[must_use]
    pub fn dev_addr(&self) -> Option<SocketAddr> {
        self.dev.as_ref().map(Server::local_addr)
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Server::local_addr)
    }

    /// Serves until `shutdown`, then drains: running requests and tasks end, new ones are not taken,
    /// and every audit record is written.
    pub async fn run(self, shutdown: CancellationToken) -> Summary {
        let Self {
            service,
            identity,
            audit,
            mesh,
            dev,
            metrics,
            spans,
            drain_timeout,
            reload,
            cut,
            lifetime,
        } = self;
        service.health.set_server(ServerPhase::Accepting);
        if let Some(metrics) = &metrics {
            tracing::info!(port = metrics.local_addr().port(), "Metrics server started");
        }
        if let Some(dev) = &dev {
            tracing::warn!(
                address = %dev.local_addr(),
                "Development listener started: plaintext, and every caller is anonymous"
            );
        }
        let address = mesh.local_addr();
        tracing::info!(host = %address.ip(), port = address.port(), "Agent server started");
        service.note(AuditEventKind::Startup {
            version: env!("CARGO_PKG_VERSION"),
            policy: service.policy.revision(),
        });

        // Watchers see the drain, so their listener ends last.
        let drained = CancellationToken::new();
        let watch = async {
            if let Some(metrics) = metrics {
                metrics.serve(drained.clone(), Duration::ZERO).await;
            }
        };
        let looking = {
            let (service, identity) = (Arc::clone(&service), Arc::clone(&identity));
            let (audit, drained) = (Arc::clone(&audit), drained.clone());
            async move {
                let mut tick = tokio::time::interval(LOOK_EVERY);
                loop {
                    tokio::select! {
                        _ = tick.tick() => {
                            look(&service, &identity, &audit);
                            service.write_due_refusals();
                        }
                        () = drained.cancelled() => return,
                    }
                }
            }
        };
        let deciding = service.policy.watch(&reload, &drained, |previous, policy| {
            service.note(AuditEventKind::PolicyUpdate { previous, policy });
        });
        let pressing = service.admission.pressure.watch(&drained);
        // Where the journal outlives the process, a drain begins no task that has not begun.
        let is_kept = service.journal.durability() != Durability::Memory;
        let idle = if is_kept { shutdown.clone() } else { drained.clone() };
        let working = async {
            tokio::join!(
                service.tasks.find_all(&service, &idle),
                service.tasks.serve_line(&service, &idle),
            );
        };
        let reviews = mesh.reviews();
        let reviewing = {
            let (identity, drained) = (Arc::clone(&identity), drained.clone());
            let host = Arc::clone(&service);
            async move {
                tokio::select! {
                    () = review_what_was_trusted(&identity, &reviews) => {}
                    () = tell_of_svids(&identity, &host.host) => {}
                    () = drained.cancelled() => {}
                }
            }
        };
        // When a drain has taken long enough.
        let enough = || async {
            tokio::select! {
                () = tokio::time::sleep(drain_timeout) => {}
                () = cut.cancelled() => {}
            }
        };
        let serving = async {
            let draining = async {
                shutdown.cancelled().await;
                service.health.set_server(ServerPhase::Draining);
                tracing::info!("Agent server draining");
                Instant::now() + drain_timeout
            };
            let plain = async {
                match dev {
                    Some(dev) => dev.serve_until(shutdown.clone(), enough()).await,
                    None => Drained::default(),
                }
            };
            let (mesh, plain, deadline) =
                tokio::join!(mesh.serve_until(shutdown.clone(), enough()), plain, draining);
            // Tasks whose callers did not wait are still at work.
            let lost_tasks = tokio::select! {
                biased;
                lost = service.tasks.ended(deadline) => lost,
                () = cut.cancelled() => service.tasks.ended(Instant::now()).await,
            };
            drop(lifetime);
            tokio::select! {
                biased;
                () = stop(&service.host, deadline) => {}
                () = cut.cancelled() => {
                    tracing::warn!("The agent's `on_stop` was dropped, since the drain was cut");
                }
            }
            drained.cancel();
            (mesh, plain, lost_tasks)
        };
        let streaming = async {
            shutdown.cancelled().await;
            let deadline = Instant::now() + drain_timeout;
            let answering = async {
                tokio::select! {
                    () = service.tasks.end_waiting(&service) => {}
                    () = drained.cancelled() => {}
                }
            };
            tokio::join!(answering, service.streams.end_before(deadline, &drained));
        };
        let ((mesh, plain, unfinished_tasks), (), (), (), (), (), (), ()) = tokio::join!(
            serving, watch, looking, deciding, pressing, reviewing, streaming, working
        );
        service.policy.close();
        service.journal.close().await;

        let summary = Summary {
            finished: mesh.finished + plain.finished,
            cut: mesh.cut + plain.cut,
            lost_tasks: if is_kept { 0 } else { unfinished_tasks },
            left_tasks: if is_kept { unfinished_tasks } else { 0 },
        };
        service.write_all_refusals();
        service.note(AuditEventKind::Shutdown {
            finished: summary.finished,
            cut: summary.cut,
            lost_tasks: summary.lost_tasks.try_into().unwrap_or(u64::MAX),
        });
        if let Some(spans) = spans {
            tokio::select! {
                () = spans.close() => {}
                () = cut.cancelled() => {}
            }
        }
        if let Err(error) = audit.close() {
            tracing::error!(error = %error, "Audit log was not written to its end");
        }
        tracing::info!(
            finished = summary.finished,
            cut = summary.cut,
            lost_tasks = summary.lost_tasks,
            left_tasks = summary.left_tasks,
            "Agent server stopped"
        );
        summary
    }

    fn look(&self) {
        look(&self.service, &self.identity, &self.audit);
    }
}

/// What a node listens on. Nothing is accepted before [`Node::run`].
struct Listeners {
    mesh: Server<Routes>,
    dev: Option<Server<Routes>>,
    metrics: Option<Server<MetricsRoutes>>,
}

impl Listeners {
    /// Opens what `config` names, and `dev`. The card, which names the port, is made between.
    fn open(
        config: &Config,
        dev: Option<SocketAddr>,
        service: &Arc<Service>,
        identity: &Arc<IdentitySource>,
    ) -> Result<Self, StartError> {
        let limits = limits(config);
        let tls = tls::listener_config(identity).map_err(StartError::Tls)?;
        let tls = TlsSource::per_connection(tls);
        let routes = |listener| Routes { listener, service: Arc::clone(service) };
        let address = config.server.address();
        let mesh = Server::bind(address, tls, limits.clone(), routes(Listener::Mesh))
            .map_err(|source| StartError::Bind { listener: "mesh", source })?;
        service.health.set_listens_at(mesh.local_addr());
        let url = config.server.advertise_address.clone();
        let url = url.unwrap_or_else(|| format!("https://localhost:{}/", mesh.local_addr().port()));
        let card = CardReply::new(&service.agent, &service.host, url, service.clock.now())?;
        service.card.get_or_init(|| card);
        let dev = dev.map(|address| {
            Server::bind(address, None, limits.clone(), routes(Listener::Dev))
                .map_err(|source| StartError::Bind { listener: "development", source })
        });
        let dev = dev.transpose()?;
        let metrics = config.observability.metrics.as_ref().map(|metrics| {
            let (service, path) = (Arc::clone(service), metrics.path.clone());
            Server::bind(metrics.address(), None, limits, MetricsRoutes { service, path })
                .map_err(|source| StartError::Bind { listener: "metrics", source })
        });
        Ok(Self { mesh, dev, metrics: metrics.transpose()? })
    }
}

/// Runs the agent's `on_stop`, until `deadline` at most.
async fn stop(host: &Host, deadline: Instant) {
    if timeout_at(deadline, host.stop()).await.is_err() {
        tracing::warn!("The agent's `on_stop` took longer than the drain may and was dropped");
    }
}

/// Writes into metrics and health what changes without a request.
fn look(service: &Service, identity: &IdentitySource, audit: &JsonLinesSink) {
    let not_after = identity.current().not_after();
    if service.health.set_svid_valid_until(not_after).is_some_and(|before| before != not_after) {
        service.metrics.rotated();
        service.note(AuditEventKind::IdentityRotation { not_after });
    }
    service.health.set_audit_healthy(audit.healthy());
    service.health.set_journal_healthy(service.journal.trouble().is_none());
    let (at_work, in_line) = service.tasks.counts();
    service.metrics.set_tasks(at_work, in_line);
    service.metrics.set_svid_valid_until(not_after);
    service.metrics.set_rotation_errors(identity.failures());
}

/// Has connections looked at again whenever a root that they may have been let in by is gone. Ends
/// only with the identity.
async fn review_what_was_trusted(identity: &IdentitySource, reviews: &Reviews) {
    let mut changes = identity.changes();
    let mut before = identity.current();
    while changes.changed().await.is_ok() {
        let now = identity.current();
        if !now.keeps_roots_of(&before) {
            tracing::info!(revision = now.revision(), "Trust was withdrawn");
            reviews.review();
        }
        before = now;
    }
}

/// Tells the agent of each new certificate. Ends only with the identity.
async fn tell_of_svids(identity: &IdentitySource, host: &Host) {
    let mut changes = identity.changes();
    let mut before = identity.current().not_after();
    while changes.changed().await.is_ok() {
        let not_after = identity.current().not_after();
        // Roots change without the certificate.
        if std::mem::replace(&mut before, not_after) != not_after {
            host.svid_update(not_after).await;
        }
    }
}

/// The identity that the node was given, if it is the configured agent's.
fn own_identity(
    config: &Config,
    given: Arc<IdentitySource>,
) -> Result<Arc<IdentitySource>, StartError> {
    let configured = &config.identity.spiffe_id;
    if given.spiffe_id() != configured {
        let (given, configured) = (given.spiffe_id().clone(), configured.clone());
        return Err(StartError::ForeignIdentity { given, configured });
    }
    Ok(given)
}

/// The identity from where the configuration says it comes from.
async fn open_identity(config: &Config) -> Result<IdentitySource, StartError> {
    let identity = &config.identity;
    let spiffe_id = identity.spiffe_id.clone();
    if let Some(files) = identity.files.clone() {
        let IdentityFiles { certificate, private_key, bundle, federated } = files;
        let files = FilesConfig { spiffe_id, certificate, private_key, bundle, federated };
        return Ok(IdentitySource::from_files(files)?);
    }
    let socket = config.workload_socket()?.to_owned();
    let mut workload_api = WorkloadApiConfig::new(socket, spiffe_id);
    workload_api.issuer_uid = identity.issuer_uid;
    Ok(IdentitySource::connect(workload_api).await?)
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections_max: config.server.limits.connections_max,
        idle_timeout: config.server.limits.idle_timeout,
        connection_age_max: config.server.limits.connection_age_max,
        ..Limits::default()
    }
}

fn check_dev(config: &Config, options: &NodeOptions) -> Result<(), StartError> {
    match options.dev {
        Some(_) if config.stage == Some(Stage::Production) => {
            Err(StartError::Dev("is refused in production; start without it"))
        }
        Some(address) if !address.ip().is_loopback() => {
            Err(StartError::Dev("is for this machine alone; use an address such as 127.0.0.1:8080"))
        }
        _ => Ok(()),
    }
}
