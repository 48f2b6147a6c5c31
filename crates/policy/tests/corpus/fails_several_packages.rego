# fails: 8
# says: unexpected keyword `package`; a policy is one package

package agentweave.authz

allow := true

package agentweave.other

allow := true
