# fails: 6
# says: which this engine does not have

package agentweave.authz

allow if http.send({"method": "get", "url": input.action}).status_code == 200
