"""Signatures of versions, made and verified elsewhere."""
