"""Bringing over what other registries keep."""
