# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow if {
    input.caller_spiffe_id == "spiffe://example.org/orchestrator"
    input.resource_spiffe_id == "spiffe://example.org/document-worker"
    input.action == "count_words"
}
