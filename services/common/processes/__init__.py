"""Processes of a program: limits, what they use, how they end together."""
