# rego_version: v0
# fails: 7
# says: always true

package agentweave.authz

allow
b := 1
