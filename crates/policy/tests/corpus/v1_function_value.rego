# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

domain(id) := split(id, "/")[2]
allow if domain(input.caller.spiffe_id) == "example.org"
