"""Preload SQLAlchemy mappers and the schema in the fork server, so that each attempt's process starts fast."""

from sqlalchemy.orm import configure_mappers

from quadbench.results import schema

configure_mappers()
schema.known_revisions()
