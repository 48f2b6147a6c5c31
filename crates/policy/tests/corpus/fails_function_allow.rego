# fails: 0
# says: neither a rule

package agentweave.authz

allow(x) := true
