"""Projects, tokens and delegations: who may do what."""
