//! `observability`: logs, metrics, traces and the audit log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use convoke_agent::Metadata;
use convoke_model::Secret;

use super::super::reader::Section;
use super::super::text::{join, quote};
use super::super::{
    AuditConfig, Environment, LoggingConfig, MetricsConfig, ObservabilityConfig, TracingConfig,
};
use super::forms::{collector_url, listen_host, page_path};
use super::secrets;
use crate::observe::logging::Format;

/// Most names of fields that are not written.
const REDACT_MAX: usize = 64;

/// Most headers of an export.
const HEADERS_MAX: usize = 32;

/// `observability` before the data directory is known.
pub(super) struct Observability {
    pub(super) metrics: Option<MetricsConfig>,
    logging: LoggingConfig,
    tracing: Option<TracingConfig>,
    audit_path: Option<PathBuf>,
    audit_sync: bool,
    rotate_bytes: Option<u64>,
    keep: u32,
}

impl Observability {
    pub(super) fn finish(
        self,
        root: &Section<'_>,
        data_dir: &Path,
        metadata: &Metadata,
    ) -> ObservabilityConfig {
        let path = self.audit_path.unwrap_or_else(|| {
            let path = data_dir.join("audit.jsonl");
            root.worked_out("observability.audit.path", path.display());
            path
        });
        if self.tracing.as_ref().is_some_and(|tracing| tracing.service_name.is_none()) {
            root.worked_out("observability.tracing.service_name", &metadata.name);
        }
        let (sync, rotate_bytes, keep) = (self.audit_sync, self.rotate_bytes, self.keep);
        ObservabilityConfig {
            logging: self.logging,
            metrics: self.metrics,
            tracing: self.tracing,
            audit: AuditConfig { path, sync, rotate_bytes, keep },
        }
    }
}

pub(super) fn read(section: &Section<'_>, env: &Environment) -> Option<Observability> {
    let logging = logging(&section.section("logging"));
    let metrics = metrics(&section.section("metrics"));
    let tracing = tracing(&section.section("tracing"), env);

    let audit = section.section("audit");
    let audit_path = audit.text("path").map(PathBuf::from);
    let audit_sync = audit.flag("sync");
    let rotate_bytes = audit.size("rotate_bytes");
    let keep = audit.number("keep");
    Some(Observability {
        metrics: metrics?,
        logging: logging?,
        tracing: tracing?,
        audit_path,
        audit_sync: audit_sync?,
        rotate_bytes: rotate_bytes?,
        keep: keep?,
    })
}

fn logging(section: &Section<'_>) -> Option<LoggingConfig> {
    // `WARNING` is how the seed's language spells the level.
    let level = section.word(
        "level",
        &[
            ("trace", tracing::Level::TRACE),
            ("debug", tracing::Level::DEBUG),
            ("info", tracing::Level::INFO),
            ("warn", tracing::Level::WARN),
            ("warning", tracing::Level::WARN),
            ("error", tracing::Level::ERROR),
        ],
    );
    let formats = [("json", Format::Json), ("pretty", Format::Pretty), ("text", Format::Pretty)];
    let format = section.word("format", &formats);
    let sampling_rate = section.share("sampling_rate");
    let redact = section.texts("redact", REDACT_MAX);
    Some(LoggingConfig {
        level: level?,
        format: format?,
        sampling_rate: sampling_rate?,
        redact: redact?,
    })
}

/// The inner `None` is no listener.
fn metrics(section: &Section<'_>) -> Option<Option<MetricsConfig>> {
    let enabled = section.enabled();
    let host = section.parsed("host", listen_host);
    let port = section.number("port");
    let path = section.parsed("path", page_path);
    // Only `environment: production` asks for it.
    section.flag("public");
    let metrics = MetricsConfig { path: path?, host: host?, port: port? };
    Some(enabled?.then_some(metrics))
}

/// The inner `None` is no traces.
fn tracing(section: &Section<'_>, env: &Environment) -> Option<Option<TracingConfig>> {
    let enabled = section.enabled();
    section.word("exporter", &[("otlp", ())]);
    let otlp_endpoint = section.parsed("otlp_endpoint", collector_url);
    let sampling_rate = section.share("sampling_rate");
    let service_name = section.text("service_name");
    let logs = section.flag("logs");
    let headers = headers(section, enabled == Some(true), env);
    let tracing = TracingConfig {
        otlp_endpoint: otlp_endpoint?,
        sampling_rate: sampling_rate?,
        service_name,
        headers: headers?,
        logs: logs?,
    };
    Some(enabled?.then_some(tracing))
}

fn headers(
    section: &Section<'_>,
    are_used: bool,
    env: &Environment,
) -> Option<BTreeMap<String, Secret>> {
    let outer = section.section("headers");
    if outer.refuse_texts(
        "is written into the file, where a secret does not belong",
        "write `{value_file: FILE}` or `{value_env: VARIABLE}` instead",
    ) {
        return None;
    }
    let sections = section.named_sections("headers");
    if sections.len() > HEADERS_MAX {
        let message =
            format!("`observability.tracing.headers` has more than {HEADERS_MAX} entries");
        section.problem("headers", &message, None);
        return None;
    }
    let mut headers = BTreeMap::new();
    let mut is_good = true;
    for (name, header) in sections {
        let Ok(parsed) = http::HeaderName::try_from(name) else {
            let path = join("observability.tracing.headers", &quote(name));
            header.problem("", &format!("`{path}` is no name of a header"), None);
            is_good = false;
            continue;
        };
        if !header.has("value_file") && !header.has("value_env") {
            header.missing("value_file", "name the file that holds the value, or use `value_env`");
            is_good = false;
            continue;
        }
        if !are_used {
            header.text("value_file");
            header.text("value_env");
            continue;
        }
        match secrets::read(&header, "value_file", "value_env", env).flatten() {
            Some(value) => drop(headers.insert(parsed.as_str().to_owned(), value)),
            None => is_good = false,
        }
    }
    is_good.then_some(headers)
}
