# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow if {
    every c in ["count_words"] {
        c == input.request.method
    }
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
}
