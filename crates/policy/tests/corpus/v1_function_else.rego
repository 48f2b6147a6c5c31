# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

rank(p) := 2 if p == "/orchestrator" else := 1
allow if {
    rank(input.caller.path) == 2
}
