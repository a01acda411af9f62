"""The metadata service's schema, as Alembic migrations."""
