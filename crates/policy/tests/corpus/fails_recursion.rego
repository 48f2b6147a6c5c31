# fails: 6
# says: no recursion

package agentweave.authz

f(x) := f(x)
allow if f(1)
