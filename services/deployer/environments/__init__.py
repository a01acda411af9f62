"""Environments: their gates, and what is looked at when a version wants to pass them."""
