"""Webhooks: a project's changes, told to other systems over HTTP."""
