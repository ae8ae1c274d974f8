"""The farm's shared store: artifacts and launch files, in a folder or bucket that all hosts can reach.

opening.py     $QUADBENCH_STORE; stores opened by folder or URL
place.py       files in a folder or bucket, by obstore
objects.py     keys of all files, contents by sha256, JSON entries, verified at each read
artifacts.py   bundles, compiled bundles and kits sent and fetched
launches.py    files of launches sent and fetched
collection.py  garbage collection: mark, wait a day, remove
"""
