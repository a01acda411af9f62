"""Watching: a project's ledger of changes, as people and controllers follow it."""
