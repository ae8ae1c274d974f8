"""Alembic migrations of the database schema, run by `schema.upgrade`."""
