# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# package: hvs.authz.overrides

package hvs.authz.overrides

allow if {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
    input.method == "count_words"
}
