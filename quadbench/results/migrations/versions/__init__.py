"""Alembic revisions of the database schema, numbered from the oldest.

0001_schema.py           the first schema, which new databases get directly
0002_pool.py             HTCondor in place of the queue
0003_emulated_memory.py  the view of figures without the memory of emulated phones
0004_packed.py           the samples of each launch in one row
0005_standing.py         since when a regression stands
"""
