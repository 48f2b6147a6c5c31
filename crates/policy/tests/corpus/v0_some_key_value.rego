# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

roles := {"orchestrator": ["count_words"]}
allow {
    some role, methods in roles
    endswith(input.caller.spiffe_id, sprintf("example.org/%s", [role]))
    input.request.method in methods
}
