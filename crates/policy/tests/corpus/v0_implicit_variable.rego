# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

ids := ["spiffe://example.org/orchestrator"]
allow { ids[i] == input.caller.spiffe_id; i >= 0 }
