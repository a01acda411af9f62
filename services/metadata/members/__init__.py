"""Members: who may do what in a project, whatever they sign in with."""
