# fails: 6
# says: unsafe

package agentweave.authz

allow if nobody == 1
