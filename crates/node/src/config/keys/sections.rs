//! The mappings of the table, in the order of the reference page.

use super::SectionKey;

/// The mappings.
pub(in crate::config) const SECTIONS: &[SectionKey] = &[
    section("identity", "who the agent is"),
    section("identity.files", "an identity that something else keeps in files, as PEM"),
    section("identity.files.federated", "the roots of other trust domains, by trust domain"),
    section("authorization", "which policy decides"),
    section("authorization.opa", "an OPA server that decides instead of the embedded engine"),
    section(
        "authorization.decision_log",
        "where each decision is kept with what it was decided on",
    ),
    section("server", "where the mesh listener is"),
    section("server.mtls", "the mesh listener's mutual TLS, which has no switch"),
    section("server.limits", "what callers may take"),
    section("agent_registry", "the agents that this one calls by a name of its own choosing"),
    section("agent_registry.NAME", "one of them"),
    SectionKey {
        path: "agent_registry.NAME.calls",
        doc: "how this agent is called; what is not written is as under `calls`",
        like: Some("calls"),
        is_open: false,
    },
    section(
        "calls",
        "how agents are called, unless their entry of `agent_registry` says otherwise",
    ),
    section("calls.retry", "when a call is made again"),
    section("calls.breaker", "when calls are no longer made for a while"),
    section("observability", "what the agent shows of itself"),
    section("observability.logging", "log lines, on standard error"),
    section("observability.metrics", "metrics and health over plain HTTP"),
    section("observability.tracing", "spans, sent to an OpenTelemetry collector"),
    section("observability.tracing.headers", "sent with each export, by name"),
    section("observability.tracing.headers.NAME", "the value of one header, which is a secret"),
    section("observability.audit", "the record of decisions"),
    SectionKey {
        path: "metadata",
        doc: "what the agent says of itself; further keys are its own",
        like: None,
        is_open: true,
    },
    section("journal", "where tasks are kept"),
    section("tasks", "how many tasks are worked on"),
];

const fn section(path: &'static str, doc: &'static str) -> SectionKey {
    SectionKey { path, doc, like: None, is_open: false }
}
