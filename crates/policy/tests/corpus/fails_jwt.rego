# fails: 6
# says: which this engine does not have

package agentweave.authz

allow if io.jwt.decode(input.action)[1].sub == "x"
