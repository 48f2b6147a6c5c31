# fails: 6
# says: invalid character in string

package agentweave.authz

allow if input.action == "count
