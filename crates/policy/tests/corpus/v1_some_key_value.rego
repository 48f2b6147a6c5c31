# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

grants := {"spiffe://example.org/orchestrator": {"count_words"}}
allow if {
    some id, methods in grants
    id == input.caller.spiffe_id
    input.action in methods
}
