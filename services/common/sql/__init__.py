"""Databases, and what is written with a change: first answers, events; SQLite or PostgreSQL."""
