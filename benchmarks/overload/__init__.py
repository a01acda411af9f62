"""How the services bear more than they can do."""
