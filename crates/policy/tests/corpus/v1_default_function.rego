# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

default rank(_) := 0
rank(id) := 2 if id == "spiffe://example.org/orchestrator"
allow if rank(input.caller.spiffe_id) > 1
