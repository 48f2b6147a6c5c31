# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# package: hvs.authz

package hvs.authz

default allow = false

allow {
    input.caller_spiffe_id == "spiffe://example.org/orchestrator"
    input.method == "count_words"
}
