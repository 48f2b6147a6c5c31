# `convoke policy test policies` runs these rules.
package agentweave.authz

teams := [{"agents": ["spiffe://{{trust_domain}}/receptionist"], "capabilities": ["greet"]}]

asks(caller, capability) := {
	"caller": {"spiffe_id": sprintf("spiffe://{{trust_domain}}/%s", [caller])},
	"request": {"method": capability},
}

test_people_may_call_everything if {
	allow with input as asks("user/ada", "greet_through") with data.teams as teams
}

test_a_team_may_call_what_it_has if {
	allow with input as asks("receptionist", "greet") with data.teams as teams
}

test_a_team_may_not_call_what_it_has_not if {
	not allow with input as asks("receptionist", "greet_through") with data.teams as teams
}

test_others_may_not_call if {
	not allow with input as asks("stranger", "greet") with data.teams as teams
}
