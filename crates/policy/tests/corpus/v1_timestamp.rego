# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

allow if time.parse_rfc3339_ns(input.request.timestamp) > time.parse_rfc3339_ns("2026-01-01T00:00:00Z")
