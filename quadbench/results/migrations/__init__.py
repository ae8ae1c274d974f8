"""Alembic migrations of the database schema, run by `schema.upgrade`.

env.py     runs the revisions on the open connection, in one transaction
versions/  the revisions, numbered from the oldest
"""
