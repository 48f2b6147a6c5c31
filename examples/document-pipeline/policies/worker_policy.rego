package agentweave.authz

default allow = false

# The orchestrator may call the three methods.
allow {
    caller_spiffe_id := input.caller.spiffe_id
    caller_spiffe_id == "spiffe://example.org/orchestrator"
    input.request.method in ["analyze_document", "count_words", "detect_sentiment"]
}

# For testing: whoever is of the agent's own trust domain may call anything. With this rule the one
# above has nothing left to say; worker_policy_strict.rego is the policy without it.
allow {
    caller_spiffe_id := input.caller.spiffe_id
    caller_trust_domain := split(caller_spiffe_id, "/")[2]
    our_trust_domain := input.agent.trust_domain
    caller_trust_domain == our_trust_domain
}
