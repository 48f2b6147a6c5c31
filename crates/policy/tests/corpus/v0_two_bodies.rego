# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

allow { input.caller.spiffe_id == "spiffe://example.org/orchestrator" }
allow { input.caller.path == "/other"; input.caller.trust_domain == "example.org" }
