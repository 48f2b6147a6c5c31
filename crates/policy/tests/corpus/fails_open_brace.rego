# fails: 8
# says: expecting `}`

package agentweave.authz

allow if {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
