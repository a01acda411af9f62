"""Runs: what was trained, with what, and how it went."""
