# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

is_known(id) { id == "spiffe://example.org/orchestrator" }
allow { is_known(input.caller.spiffe_id) }
