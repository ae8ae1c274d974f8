"""Migrations: the database's schema, one revision after the other; run by `schema.upgrade`."""
