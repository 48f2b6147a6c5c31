# `convoke policy test policy.rego policy_test.rego` runs these rules.
package agentweave.authz

test_people_may_call if {
	allow with input as {"caller": {"spiffe_id": "spiffe://{{trust_domain}}/user/ada"}}
}

test_agents_may_not_call if {
	not allow with input as {"caller": {"spiffe_id": "spiffe://{{trust_domain}}/other-agent"}}
}

test_other_trust_domains_may_not_call if {
	not allow with input as {"caller": {"spiffe_id": "spiffe://stranger.example/user/ada"}}
}
