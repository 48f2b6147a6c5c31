# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow if count([x | some x in [y | some y in ["spiffe://example.org/orchestrator"]]; x == input.caller.spiffe_id]) > 0
