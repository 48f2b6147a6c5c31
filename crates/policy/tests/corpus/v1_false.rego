# language: v1
# deny: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

default allow := false
