package agentweave.authz

# The orchestrator takes requests from everybody who has proved who they are.
default allow = true
