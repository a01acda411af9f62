"""Alembic's entry: migrate the connection the chassis hands over."""

from alembic import context

from services.deployer.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
