"""The controllers' side: what should be live, and what became of it."""
