//! `server`: where the mesh listener is, and what callers may take.

use super::super::reader::Section;
use super::super::{LimitsConfig, ServerConfig};
use super::forms::{advertise_address, listen_host};

pub(super) fn read(section: &Section<'_>) -> Option<ServerConfig> {
    let host = section.parsed("host", listen_host);
    let port = section.number("port");
    let advertise_address = section.parsed("advertise_address", advertise_address);
    let drain_timeout = section.duration("drain_timeout");

    let mtls = section.section("mtls");
    if mtls.flag("enabled") == Some(false) {
        mtls.problem(
            "enabled",
            "`server.mtls.enabled` is false, but the mesh listener never goes without",
            Some("for a plaintext listener on loopback start with `--dev` instead"),
        );
    }
    mtls.word("cert_source", &[("spire", ())]);

    let limits = limits(&section.section("limits"));
    Some(ServerConfig {
        host: host?,
        port: port?,
        advertise_address,
        limits: limits?,
        drain_timeout: drain_timeout?,
    })
}

fn limits(section: &Section<'_>) -> Option<LimitsConfig> {
    let body_bytes_max = section.size("body_bytes_max");
    let connections_max = section.number("connections_max");
    let idle_timeout = section.duration("idle_timeout");
    let connection_age_max = section.duration("connection_age_max");
    let requests_max = section.number("requests_max");
    let queue_time_max = section.duration("queue_time_max");
    Some(LimitsConfig {
        body_bytes_max: body_bytes_max??,
        connections_max: connections_max?,
        idle_timeout: idle_timeout?,
        connection_age_max: connection_age_max?,
        requests_max: requests_max?,
        queue_time_max: queue_time_max?,
    })
}
