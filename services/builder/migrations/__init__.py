"""The builder's schema, as Alembic migrations."""
