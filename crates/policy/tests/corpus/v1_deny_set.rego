# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# reason: not ours

package agentweave.authz

default allow := false
allow if count(deny) == 0
deny contains "not ours" if not input.caller.spiffe_id == "spiffe://example.org/orchestrator"
reason := concat(", ", deny) if count(deny) > 0
