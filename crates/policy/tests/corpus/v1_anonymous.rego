# language: v1
# deny: caller=spiffe://example.org/orchestrator method=count_words
# allow: caller=anonymous method=count_words

package agentweave.authz

allow if not input.caller.spiffe_id
