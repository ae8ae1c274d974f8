"""Build runtime kits from vendor libraries or public packages, verify them, and store them in the results folder.

store.py              kits added, fetched, listed, found by digest and removed
archives.py           copies of one ABI's libraries from AARs, wheels, zips, folders; size limits
elf.py                a library's machine, needed libraries, page alignment, build id and exported names
kit_compatibility.py  reasons against a kit on an ABI or target, best kit choice
packages.py           pinned packages, downloaded from npm, PyPI, Maven or Debian and checked by SHA-256
"""
