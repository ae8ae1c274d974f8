"""Alembic revisions of the database schema, numbered from the oldest.

0001_schema.py   the first schema, which new databases get directly
0002_pool.py     HTCondor in place of the queue
0003_samples.py  samples in rows of launches, nights of standing regressions, no memory of emulated phones
"""
