# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

limits[path].rate := 3 if some path in ["/orchestrator"]
allow if limits[input.caller.path].rate == 3
