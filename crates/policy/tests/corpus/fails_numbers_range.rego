# fails: 6
# says: numbers.range

package agentweave.authz

allow if 3 in numbers.range(1, input.request.params.n)
