# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

every { input.request.method in ["count_words"] }
allow { every }
