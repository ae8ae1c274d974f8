"""The phones of a lab, and who may use them: names, health, leases and reservations. Every run needs it, at a desk or on a farm.

farm_file.py   farm.yaml: phones of a lab with names and labels
selection.py   grammar of wishes such as `s25*2,chip=SM8750`
wishes.py      wishes resolved to free phones
inventory.py   table of all phones that a host has seen
health.py      quarantine after three failures, probation, recovery
overview.py    phones, claims and names in one list
leases.py      who may use a device: leases, reservations and fencing tokens in the database
held.py        leases of a job's devices, renewed until it ends
"""
