"""What stands around every RPC: the server, all that a call passes through, other services."""
