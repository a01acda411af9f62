"""Packing: from a model in memory or a folder to a bundle, and to a registered version."""
