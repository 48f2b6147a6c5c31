# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow {
    every part in [input.request.method] { part == "count_words" }
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
}
