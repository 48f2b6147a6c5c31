# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words

package agentweave.authz

allow if {
    [hour, _, _] := time.clock(time.now_ns())
    hour == 23
}
