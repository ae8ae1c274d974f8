"""Prepared: its import -> what each attempt would do anew is done once, in the process that their processes are forked from."""

from sqlalchemy.orm import configure_mappers

from quadbench.results import schema

configure_mappers()
schema.known()
