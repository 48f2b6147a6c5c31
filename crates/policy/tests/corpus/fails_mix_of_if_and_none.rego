# fails: 10
# says: write `if` before each body

package agentweave.authz

import rego.v1

helper if { true }

allow {
    input.caller.spiffe_id == "spiffe://example.org/orchestrator"
}
