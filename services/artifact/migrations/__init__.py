"""The artifact service's schema, as Alembic migrations."""
