# Who may call {{name}}. Whatever is not allowed here is refused.
package agentweave.authz

default allow := false

# People of this trust domain, whatever their login names are.
allow if startswith(input.caller.spiffe_id, "spiffe://{{trust_domain}}/user/")
