"""How Alembic reaches the platform's database: over the connection that `store.schema` hands it."""

from alembic import context

from branchline.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    compare_server_default=False,
)
with context.begin_transaction():
    context.run_migrations()
