"""The bars of the artifact service."""
