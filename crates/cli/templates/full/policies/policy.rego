# Who may call {{name}}, and what. Whatever is not allowed here is refused.
package agentweave.authz

default allow := false

# People may call everything.
allow if startswith(input.caller.spiffe_id, "spiffe://{{trust_domain}}/user/")

# The agents of a team may call what the team has: see teams.json.
allow if {
	some team in data.teams
	input.caller.spiffe_id in team.agents
	input.request.method in team.capabilities
}
