# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

allow if time.clock([time.now_ns(), "UTC"])[0] == 23
