"""Automations as files: read strictly, with the line of what is wrong."""
