# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# package: user.authz

package user.authz

allow { input.caller.spiffe_id == "spiffe://example.org/orchestrator" }
