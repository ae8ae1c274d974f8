"""Migrations: the database's schema, one revision after the other; run by `records.open_records`."""
