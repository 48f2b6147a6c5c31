# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# allow: caller=anonymous method=count_words

package agentweave.authz

allow := true
