# rego_version: v0
# fails: 8
# says: unexpected keyword `every`

package agentweave.authz

allow := x if { x := true }
every := 1
allow contains 1
