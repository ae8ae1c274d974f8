"""Alembic environment that runs the migrations on the connection of `schema.upgrade`, inside its transaction.

Foreign keys must be off on that connection. SQLite's batch mode copies a table and drops the old one; with foreign keys a
CASCADE would delete the rows of child tables. `engine` checks the keys before it commits.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
