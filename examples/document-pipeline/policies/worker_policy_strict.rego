package agentweave.authz

# What the tutorial's note promises: the orchestrator alone may call the worker.
# worker_policy.rego has a second rule, for testing, that lets in the whole trust domain.
default allow = false

allow {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
    input.request.method in ["analyze_document", "count_words", "detect_sentiment"]
}
