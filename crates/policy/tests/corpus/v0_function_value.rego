# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

domain(id) = d { d := split(id, "/")[2] }
allow { domain(input.caller.spiffe_id) == "example.org" }
