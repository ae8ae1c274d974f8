"""Alembic's environment: runs the revisions on the connection that `schema` hands over, inside its transaction.

Foreign keys must be off on that connection: SQLite's batch mode copies a table and drops the old one, and with keys on a CASCADE
would delete the children of what is dropped. `engine` checks the keys before it commits.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
