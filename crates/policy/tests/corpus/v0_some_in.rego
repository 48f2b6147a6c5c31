# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow {
    some id in ["spiffe://example.org/orchestrator"]
    input.caller.spiffe_id == id
}
