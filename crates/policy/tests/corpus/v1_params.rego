# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words params={"n": 3}
# deny: caller=spiffe://example.org/orchestrator method=count_words params={"n": "9"}
# deny: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

allow if {
    is_number(input.request.params.n)
    to_number(input.request.params.n) < 5
}
