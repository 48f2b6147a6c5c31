# fails: 8
# says: write `if` before each body

package agentweave.authz

import rego.v1

allow {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
}
