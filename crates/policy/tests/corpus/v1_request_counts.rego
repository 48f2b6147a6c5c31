# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# data: {"request_counts": {"spiffe://example.org/orchestrator": 3, "spiffe://other.org/x": 9}}

package agentweave.authz

allow if data.request_counts[input.caller.spiffe_id] < 5
