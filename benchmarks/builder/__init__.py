"""The bars of the builder."""
