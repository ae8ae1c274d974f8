"""Alembic revisions of the database schema, numbered from the oldest."""
