# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow if {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
    input.agent.trust_domain == "example.org"
    input.request.method == "count_words"
    input.request.timestamp
    input.context.request_id
    input.context.remote_addr
}
