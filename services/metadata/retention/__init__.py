"""Retention: which versions go by themselves."""
