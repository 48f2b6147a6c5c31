# language: v1
# allow: caller=spiffe://example.org/orchestrator method=count_words
# deny: caller=spiffe://other.org/x method=count_words
# deny: caller=anonymous method=count_words
# data: {"callers": {"spiffe://example.org/orchestrator": true}}

package agentweave.authz

import data.callers

allow if callers[input.caller.spiffe_id]
