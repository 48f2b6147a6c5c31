# fails: 0
# says: neither a rule

package agentweave.authz

permit := true
