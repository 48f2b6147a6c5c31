# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

known(id) if id == "spiffe://example.org/orchestrator"
allow if known(input.caller.spiffe_id)
