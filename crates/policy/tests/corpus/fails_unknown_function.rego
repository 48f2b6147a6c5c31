# fails: 6
# says: did you mean `startswith`?

package agentweave.authz

allow if starts_with(input.action, "a")
