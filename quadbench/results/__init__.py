"""The results folder and its database: where files are, and how they are written and read.

layout.py          the path of every file and folder in a results folder
disk.py            atomic writes; errors for a full, read-only or moved folder
documents.py       JSON files with a schema_version, validated when read
digests.py         SHA-256 of files, JSON values and a stage's source code
manifest.py        bundle and kit folders: manifest, checksums, temporary folders, publishing
bundles.py         bundles stored by digest, frozen under a name, or last admitted
stored_runs.py     run.json; finding, loading, resuming and merging runs; launches that do not count
progress.py        progress files of running commands; is a command still alive
maintenance.py     pruning old runs, removing leftover files
engine.py          opening SQLite or PostgreSQL, $QUADBENCH_DATABASE, transactions, database clock
sql_dialects.py    SQLite and PostgreSQL: connection settings, locks, messages for errors
schema.py          database tables, the `kpis` view, their creation and schema version
packed_samples.py  a launch's samples as one row: packing and unpacking
records.py         launch records and samples; summaries of runs for lists
nights.py          nightly measurements, verdicts, accepted changes; summaries of nights
"""
