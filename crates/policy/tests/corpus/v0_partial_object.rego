# language: v0
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words

package agentweave.authz

methods[path] = list { path := "/orchestrator"; list := ["count_words"] }
allow { methods[input.caller.path][_] == input.request.method }
