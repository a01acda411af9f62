"""Calls, and how they get across: the server found, channels, breaks, errors."""
