"""Datasets and their versions, identified by digest."""
