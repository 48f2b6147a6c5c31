# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

ids := {x: true | some x in ["spiffe://example.org/orchestrator"]}
allow if ids[input.caller.spiffe_id]
