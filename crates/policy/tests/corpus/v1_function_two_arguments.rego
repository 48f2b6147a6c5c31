# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

may(id, m) if {
    id == "spiffe://example.org/orchestrator"
    m in ["count_words"]
}
allow if may(input.caller.spiffe_id, input.request.method)
