# rego_version: v1
# fails: 7
# says: leave `rego_version` out

package agentweave.authz

allow { input.caller.spiffe_id == "spiffe://example.org/orchestrator" }
