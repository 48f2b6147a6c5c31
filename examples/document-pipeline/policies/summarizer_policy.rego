package agentweave.authz

# The orchestrator may have texts summarized, and nobody else.
default allow = false

allow {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
    input.request.method == "summarize"
}
