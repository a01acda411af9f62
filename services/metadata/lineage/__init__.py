"""Lineage: where versions are used."""
